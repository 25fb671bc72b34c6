// What the CLI is told of an ingest (PROTOCOL §8.4): a container whose environment and files the laptop has, and no
// traffic. Known to the daemon alone.
import { z } from "zod";
import { workloadSchema } from "./manager-api.ts";
import { podPortSchema } from "./pod-port.ts";

export const ingestInfoSchema = z.object({
  workload: workloadSchema,
  containerName: z.string(),
  /** The pod that its files are kept in step with; left out while there is none. */
  podName: z.string().optional(),
  /** Where its volumes are on the laptop. */
  mountPoint: z.string().optional(),
  /** Ports of its pods that are reached on the laptop. */
  toPod: z.array(podPortSchema).optional(),
});
export type IngestInfo = z.infer<typeof ingestInfoSchema>;
