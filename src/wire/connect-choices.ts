// What `--transport` and `--agent` may say, apart from the schemas of the control API: a command line that only prints
// its help, or finds no daemon, starts in half the time without them.

/** `auto`: straight to the manager where that has been made possible, and by port-forward meanwhile and otherwise. */
export const transportWishes = ["auto", "port-forward", "direct"] as const;
export type TransportWish = (typeof transportWishes)[number];

/** `auto`: the one that is there, else ephemeral where the cluster allows it, else by a rollout. */
export const agentModes = ["auto", "ephemeral", "sidecar"] as const;
export type AgentMode = (typeof agentModes)[number];
