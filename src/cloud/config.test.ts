// Flags and variables of `telepresence cloud serve`.
import { describe, expect, test } from "vitest";
import { parseCloudConfig } from "./config.ts";

const said: string[] = [];
const parse = (words: readonly string[], env: Readonly<Record<string, string>> = { HOME: "/home/ann" }) =>
  parseCloudConfig(
    ["serve", ...words],
    (command) => command.exitOverride().configureOutput({ writeErr: (text) => void said.push(text) }),
    env,
  );

describe("without flags", () => {
  test("it is a server to try out, on this machine", () => {
    const config = parse([]);
    expect(config.listen).toEqual({ host: "127.0.0.1", port: 8443 });
    expect(config.url.origin).toBe("http://localhost:8443");
    expect(config.previewDomain).toBe("preview.localhost");
    expect(config.database).toEqual({ kind: "sqlite", path: "/home/ann/.local/share/telepresence/cloud.sqlite" });
    expect(config.oidc).toBeUndefined();
  });
});

describe("variables", () => {
  test("stand for flags, and a flag wins", () => {
    const env = {
      TELEPRESENCE_CLOUD_DATABASE: "postgres://ann:secret@db/cloud",
      TELEPRESENCE_CLOUD_LOG_LEVEL: "debug",
    };
    const config = parse(["--log-level", "warn"], env);
    expect(config.database).toEqual({ kind: "postgres", url: "postgres://ann:secret@db/cloud" });
    expect(config.logLevel).toBe("warn");
  });
});

describe("a server for others", () => {
  test("has its own address and domain", () => {
    const config = parse([
      "--listen",
      "0.0.0.0:443",
      "--url",
      "https://tp.example.com",
      "--preview-domain",
      "*.p.example.org",
    ]);
    expect(config.url.host).toBe("tp.example.com");
    expect(config.previewDomain).toBe("p.example.org");
  });
  test("has no previews without a domain", () => {
    expect(parse(["--url", "https://tp.example.com"]).previewDomain).toBeUndefined();
  });
});

describe("refuses, naming what was given,", () => {
  test.each([
    [["--listen", "here"], '--listen is "here"'],
    [["--listen", "127.0.0.1:70000"], '--listen is "127.0.0.1:70000"'],
    [["--listen", "0.0.0.0:443"], "does not know its own address"],
    [["--url", "http://tp.example.com"], "would carry logins in plain text"],
    [["--url", "https://tp.example.com/x"], "expected https://NAME without a path"],
    [["--url", "https://ann@tp.example.com"], "expected https://NAME without a path"],
    [["--url", "https://tp.example.com", "--preview-domain", "example.com"], "--url lies in it"],
    [["--preview-domain", "nothing"], "expected a domain"],
    [["--tls-cert", "a.pem"], "belong together"],
    [["--database", "mysql://ann:secret@db"], '--database is "mysql://…@db"'],
    [["--oidc-issuer", "https://id.example.com"], "--oidc-client-id"],
    [["--oidc-issuer", "id"], '--oidc-issuer is "id"'],
    [["--log-level", "loud"], '--log-level is "loud"'],
    [["--nonsense"], "unknown option"],
  ])("%j", (words, complaint) => {
    expect(() => parse(words)).toThrow(complaint);
  });
});

test("a mistake is told as the program's other ones are", () => {
  said.length = 0;
  expect(() => parse(["--nonsense"])).toThrow();
  expect(said.join("")).toBe(
    "telepresence cloud serve: unknown option '--nonsense'\nSee 'telepresence cloud serve --help'.\n",
  );
});
