// When a memory cgroup is full the kernel ends the process with the highest badness: its resident pages, plus
// `oom_score_adj` thousandths of the limit. Kubernetes gives a Burstable pod's containers nearly the highest score, so
// raising our own to the most there is would still leave a larger application the worse of the two. Resident pages are
// counted once for each mapping: a few pages that are mapped again and again make this process the worst by far, for
// one 512th of what it seems to hold. It is no promise: while the pages of the ended process are freed the kernel no
// longer sees it, and an application that asks for more in those milliseconds may be ended as well (seen under load).
import { writeFileSync } from "node:fs";
import { checkCall, libc } from "./ffi.ts";

/** protocol: the most there is; raising one's own needs no privilege. */
const highestScore = "1000";
const scoreFile = "/proc/self/oom_score_adj";

const pageGroupBytes = 2 * 1024 * 1024;
/** chosen: an application's pages of its program's file come on top, which no limit counts; ours do as well. */
const aheadBytes = 64 * 1024 * 1024;
/** chosen: 32 MiB of page tables; who has a larger limit has room. */
const mostBytes = 16 * 1024 * 1024 * 1024;

const closeOnExec = 1; // MFD_CLOEXEC
const readable = 1; // PROT_READ
const sharedAndPresent = 0x1 | 0x8000; // MAP_SHARED | MAP_POPULATE

/** First half: enough where the application's own score is low, as in a Guaranteed pod. */
export function raiseOomScore(): void {
  writeFileSync(scoreFile, highestScore);
}

/** Makes this process the first to be ended when a cgroup of this limit is full. For good. */
export function seemLargerThan(limitBytes: number): void {
  const { memfdCreate, ftruncate, mmap, close } = libc();
  const fd = checkCall(memfdCreate("telepresence-oom", closeOnExec), "unsupported", "making a file in memory");
  try {
    checkCall(ftruncate(fd, pageGroupBytes), "unsupported", "sizing a file in memory");
    const wanted = Math.min(limitBytes + aheadBytes, mostBytes);
    for (let mapped = 0; mapped < wanted; mapped += pageGroupBytes) {
      checkCall(mmap(pageGroupBytes, readable, sharedAndPresent, fd), "unsupported", "mapping a file in memory");
    }
  } finally {
    close(fd); // the mappings stay
  }
}
