// What the kernel says of a file, in words for people: Node's own sentence has the errno's name, the system call and the
// path once more, which the message around it has named.

const words: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or directory",
  EACCES: "permission is denied",
  EPERM: "permission is denied",
  EISDIR: "it is a directory",
  ENOTDIR: "a part of its path is no directory",
  EEXIST: "a file of that name is in the way",
  EROFS: "its file system is read-only",
  ENOSPC: "no space is left",
  EDQUOT: "no space is left",
  ELOOP: "its symbolic links lead in a circle",
  ENAMETOOLONG: "its name is too long",
};

/** For `… cannot be read: ${…}`; what is not of a file keeps its own words. */
export function describeFileError(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return words[code ?? ""] ?? message;
}
