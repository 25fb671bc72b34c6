// A preview of one's own intercept: how requests come in, then the daemon makes it.
import type { Connected } from "#cli/connection/connection.ts";
import type { CommandContext } from "#cli/context.ts";
import type { PreviewAccess, PreviewIngress } from "#wire/cloud-api.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { CreatedPreview } from "#wire/preview.ts";
import type { ParamsOf } from "#wire/rpc.ts";
import { chooseIngress } from "./ingress-questions.ts";
import { readAddedHeaders, readIngressFlags } from "./preview-flags.ts";
import type { PreviewFlags } from "./preview-flags.ts";

/** chosen: what may be listed of a large cluster; the cloud server and the traffic-manager answer. */
const [findLimitMs, createLimitMs] = [20_000, 45_000];

/** Asks, where there is something to ask. */
export async function settleIngress(
  context: CommandContext,
  { daemon }: Connected,
  target: ParamsOf<typeof controlApi, "findIngress">,
  flags: PreviewFlags,
): Promise<PreviewIngress> {
  context.output.progress("Looking for the cluster's ingress");
  const known = await daemon.client.call("findIngress", target, findLimitMs);
  return await chooseIngress(context, readIngressFlags(flags), known);
}

export interface PreviewOrder {
  readonly intercept: string;
  readonly namespace: string | undefined;
  readonly ingress: PreviewIngress;
  /** PEM. */
  readonly ingressCa: string | undefined;
  readonly access?: PreviewAccess;
}

export async function makePreview(
  { output }: CommandContext,
  { daemon }: Connected,
  { intercept, namespace, ingress, ingressCa, access }: PreviewOrder,
  flags: PreviewFlags,
): Promise<CreatedPreview> {
  output.progress(`Creating a preview URL for ${intercept}`);
  const headers = readAddedHeaders(flags);
  const created = await daemon.client.call(
    "createPreview",
    {
      intercept,
      namespace,
      ingress,
      access,
      headers,
      team: flags.team,
      insecure: flags.ingressInsecure,
      ingressCa,
      banner: flags.banner !== false && flags.previewUrlBanner !== false,
    },
    createLimitMs,
  );
  for (const warning of created.warnings) output.warn(warning);
  return created;
}
