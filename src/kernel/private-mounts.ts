// Mounts in a mount namespace of this process's own (mount_namespaces(7)): nobody outside sees them, and they go with
// the namespace's last process. Needs a user namespace, or root, that the mount namespace belongs to.
import { checkCall, libc } from "./ffi.ts";

const bind = 0x1000;
const noSuid = 2;
const noDev = 4;
const detach = 2;

/** An empty folder in memory over what is there. */
export function mountMemory(target: string): void {
  const result = libc().mount("telepresence", target, "tmpfs", noSuid | noDev);
  checkCall(result, "dns_hook_failed", `covering ${target}`);
}

/** One file in another's place. */
export function bindFile(source: string, target: string): void {
  checkCall(libc().mount(source, target, "", bind), "dns_hook_failed", `putting a file in the place of ${target}`);
}

/** What was covered is there again; files that are bound elsewhere stay there. */
export function unmount(target: string): void {
  checkCall(libc().umount(target, detach), "dns_hook_failed", `uncovering ${target}`);
}
