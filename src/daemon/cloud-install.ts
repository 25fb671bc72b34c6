// `cloud install` and `cloud uninstall`: with the user's own credentials, without a connection.
import { deadline } from "#base/abort.ts";
import type { Clock } from "#base/clock.ts";
import { applyCloud, refuseToForget, removeCloud, waitForCloud } from "#installer/cloud.ts";
import { buildCloud, keepsFile } from "#installer/cloud-manifest.ts";
import { loadTarget } from "#kube/config.ts";
import type { controlApi } from "#wire/control-api.ts";
import type { ParamsOf, ResultOf } from "#wire/rpc.ts";
import { defaultImage, openUserKube } from "./cluster-session.ts";
import type { Caller } from "./control/server.ts";

/** chosen: an image is pulled, a volume made. */
const limitMs = 300_000;

export async function installCloud(
  { target, installation, onlyPrint }: ParamsOf<typeof controlApi, "cloudInstall">,
  caller: Caller,
  clock: Clock,
): Promise<ResultOf<typeof controlApi, "cloudInstall">> {
  const image = { image: target.image ?? defaultImage, pullPolicy: target.imagePullPolicy };
  const objects = [...buildCloud(installation, image)];
  if (onlyPrint) return { objects, done: [] };
  using kube = openUserKube(await loadTarget(target.kube), clock);
  using limit = deadline(clock, limitMs, "installing the cloud server", caller.gone);
  const { namespace, secret } = installation;
  const place = { namespace, onProgress: caller.progress, signal: limit.signal };
  if (keepsFile(installation)) await refuseToForget(kube, place);
  const { done, revision } = await applyCloud(kube, objects, place, "name" in secret ? secret.name : undefined);
  await waitForCloud(kube, place, revision);
  return { objects: [], done: [...done] };
}

export async function uninstallCloud(
  { target, namespace, deleteData }: ParamsOf<typeof controlApi, "cloudUninstall">,
  caller: Caller,
  clock: Clock,
): Promise<ResultOf<typeof controlApi, "cloudUninstall">> {
  using kube = openUserKube(await loadTarget(target.kube), clock);
  using limit = deadline(clock, limitMs, "removing the cloud server", caller.gone);
  const place = { namespace, onProgress: caller.progress, signal: limit.signal };
  const { removed, notes } = await removeCloud(kube, place, deleteData);
  return { removed: [...removed], warnings: [...notes] };
}
