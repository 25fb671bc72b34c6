// Whether this machine's new network devices have IPv6. Many guides switch it off by sysctl, some by the kernel's
// command line; what is off stays off.
import { readFileSync } from "node:fs";

const setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

export function devicesHaveIpv6(file = setting): boolean {
  try {
    return readFileSync(file, "utf8").trim() === "0";
  } catch {
    return false; // a kernel without IPv6 has no such file
  }
}
