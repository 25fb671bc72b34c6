// What a laptop calls itself, `user@host`, is shown on other people's terminals.

export function printable(text: string): string {
  return text.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
}
