// CLI ↔ daemon: previews of one's own intercepts, and how requests come into the cluster.
import { z } from "zod";
import { createPreviewRequest, previewIngress } from "./cloud-api.ts";
import { workloadKinds } from "./manager-api.ts";
import { method } from "./rpc.ts";

const name = z.string().min(1).max(253);
const namespace = z.string().max(63);

/** `load-balancer`: a service with an address outside; `controller`: that of an ingress controller; `service`: the workload's own. */
export const ingressSources = ["load-balancer", "controller", "service"] as const;

export const foundIngressSchema = previewIngress.extend({ source: z.enum(ingressSources) });
export type FoundIngress = z.infer<typeof foundIngressSchema>;

const { team, ingress, insecure, ingressCa, headers, access, banner } = createPreviewRequest.shape;

const createdPreviewSchema = z.object({
  id: z.string(),
  url: z.string(),
  access,
  /** What keeps visitors out for now. */
  warnings: z.array(z.string()),
});
export type CreatedPreview = z.infer<typeof createdPreviewSchema>;

/** The part of the control API that is about previews. */
export const previewControlApi = {
  /** What of the cluster may be its ingress for this workload, best first; empty where nothing can be seen. */
  findIngress: method(
    z.object({
      name,
      service: name.optional(),
      workload: name.optional(),
      kind: z.enum(workloadKinds).optional(),
      namespace: namespace.optional(),
      container: name.optional(),
      ports: z.array(z.string().max(64)).max(64),
    }),
    z.object({
      /** `<server>/<context>`: answers are remembered by it. */
      cluster: z.string(),
      found: z.array(foundIngressSchema),
    }),
  ),
  /** Of one's own intercept. Makes the one there is anew. */
  createPreview: method(
    z.object({
      intercept: name,
      namespace: namespace.optional(),
      team,
      ingress,
      insecure,
      ingressCa,
      headers,
      access,
      banner,
    }),
    createdPreviewSchema,
  ),
  removePreview: method(z.object({ intercept: name }), z.object({})),
  /** Somebody has logged in or out on this laptop. */
  loginChanged: method(z.object({}), z.object({})),
} as const;

/** The cloud server that this laptop's user is logged in at, in `status`; left out where nobody is. */
export const cloudStatusSchema = z.object({
  url: z.string(),
  /** `away`: it cannot be reached, or refuses. */
  state: z.enum(["connected", "connecting", "away"]),
  message: z.string(),
});
export type CloudStatus = z.infer<typeof cloudStatusSchema>;
