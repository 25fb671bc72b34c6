// The headings under which the first page of help lists the commands.
export const groups = { session: "Session Commands:", traffic: "Traffic Commands:", other: "Other Commands:" } as const;
