// Ports of a pod that are reached on the laptop's loopback (`--to-pod`). Known to CLI and daemon alone.
import { z } from "zod";

export const podPortSchema = z.object({
  /** The same number in the pod and on 127.0.0.1 of the laptop. */
  port: z.number().int().min(1).max(65_535),
  protocol: z.enum(["tcp", "udp"]),
});
export type PodPort = z.infer<typeof podPortSchema>;

/** `6379/TCP` */
export const formatPodPort = ({ port, protocol }: PodPort): string => `${port}/${protocol.toUpperCase()}`;
