// What a stand-in is told: it runs in the place of a container that a laptop's process replaces, as an argument of its
// program (`traffic-agent stand-in JSON`), which the installer writes into the workload's template.
import { z } from "zod";

export const standInCommand = "stand-in";

export const standInSchema = z.object({
  /** `deployment hello`, for people. */
  workload: z.string().max(400),
  container: z.string().max(253),
  /** Who replaced it: `user@host`, as that laptop calls itself. */
  by: z.string().max(300),
  /** TCP ports on which the container's callers and the kubelet expect somebody. */
  ports: z.array(z.number().int().min(1).max(65_535)).max(256),
});
export type StandIn = z.infer<typeof standInSchema>;
