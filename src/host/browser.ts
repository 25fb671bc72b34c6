// The user's web browser: whether there is one to open, and opening a page in it.
import { spawn } from "node:child_process";

type Environment = Readonly<Record<string, string | undefined>>;

/** False over SSH, where a browser would open on the wrong machine's screen or none, and without a screen. */
export function hasBrowser(env: Environment, platform: string = process.platform): boolean {
  const set = (name: string): boolean => (env[name] ?? "") !== "";
  if (set("SSH_CONNECTION") || set("SSH_TTY")) return false;
  return platform !== "linux" || set("DISPLAY") || set("WAYLAND_DISPLAY");
}

const openers: Readonly<Partial<Record<string, readonly string[]>>> = {
  darwin: ["open"],
  win32: ["rundll32", "url.dll,FileProtocolHandler"],
};

/** Only starts it: resolves with whether the program could be started. It lives on when this one ends. */
export function openBrowser(url: string, env: Readonly<Record<string, string>>): Promise<boolean> {
  const [file = "xdg-open", ...words] = openers[process.platform] ?? ["xdg-open"];
  return new Promise((resolve) => {
    const child = spawn(file, [...words, url], { stdio: "ignore", detached: true, env: { ...env } });
    child.once("error", () => resolve(false));
    child.once("spawn", () => {
      child.unref();
      resolve(true);
    });
  });
}
