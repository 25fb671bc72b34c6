// Stories of the original: a renewed certificate was never read again ("bad certificate", trap 47); a missing key file
// took the port down.
import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { FakeClock } from "#base/clock.fake.ts";
import { createIdentity } from "#tunnel/identity.ts";
import type { Identity } from "#tunnel/identity.ts";
import { TlsCertificates } from "./tls-certificates.ts";

const folders: string[] = [];
afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** A volume as the kubelet makes it: files are links into a folder that is swapped as a whole. */
class Volume {
  readonly path = mkdtempSync(join(tmpdir(), "tls-volume-"));
  #version = 0;

  constructor(files: Readonly<Record<string, string>>) {
    folders.push(this.path);
    this.swap(files);
  }

  swap(files: Readonly<Record<string, string>>): void {
    const version = `..${(this.#version += 1)}`;
    mkdirSync(join(this.path, version));
    for (const [name, content] of Object.entries(files)) {
      writeFileSync(join(this.path, version, name), content);
      if (this.#version === 1) symlinkSync(join("..data", name), join(this.path, name));
    }
    symlinkSync(version, join(this.path, "..new"));
    renameSync(join(this.path, "..new"), join(this.path, "..data"));
  }
}

const filesOf = ({ certificatePem, privateKeyPem }: Identity): Readonly<Record<string, string>> => ({
  "tls.crt": certificatePem,
  "tls.key": privateKeyPem,
});
const volumeOf = (name: string, { path }: Volume, secret = `${name}-secret`) => ({ name, secret, path });
const now = Date.now();

/** The clock of tests is years behind the certificates made today. */
class TodaysClock extends FakeClock {
  offsetMs = 0;
  override wallMs(): number {
    return now + this.offsetMs + this.now();
  }
}

function store(...volumes: readonly ReturnType<typeof volumeOf>[]) {
  const clock = new TodaysClock();
  return { clock, certificates: new TlsCertificates({ volumes, clock }) };
}

describe("certificates of the pod's volumes", () => {
  test("are found by the key that the application shows, whatever the volume", () => {
    const [one, two] = [createIdentity("one"), createIdentity("two")];
    const { certificates } = store(volumeOf("a", new Volume(filesOf(one))), volumeOf("b", new Volume(filesOf(two))));
    expect(certificates.obstacle([])).toBeUndefined();
    expect(certificates.find(two.fingerprint, [])?.chain.toString()).toBe(two.certificatePem);
    expect(certificates.find(createIdentity("three").fingerprint, [])).toBeUndefined();
    expect(certificates.only([])).toBeUndefined();
    expect(certificates.only([{ volume: "b" }])?.fingerprint).toBe(two.fingerprint);
    expect(certificates.only([{ volume: "a-secret" }])?.fingerprint).toBe(one.fingerprint);
  });

  test("may have files of other names", () => {
    const identity = createIdentity("one");
    const volume = new Volume({ "server.pem": identity.certificatePem, key: identity.privateKeyPem });
    const { certificates } = store(volumeOf("a", volume));
    const choice = { volume: "a", certificateFile: "server.pem", keyFile: "key" };
    expect(certificates.obstacle([])).toBe(
      "none of the pod's volumes has tls.crt and tls.key (volume a (Secret a-secret))",
    );
    expect(certificates.find(identity.fingerprint, [])).toBeUndefined();
    expect(certificates.find(identity.fingerprint, [choice])?.fingerprint).toBe(identity.fingerprint);
  });

  test("are read again when they are renewed, and what was before stays for an application that still shows it", async () => {
    const [one, two] = [createIdentity("one"), createIdentity("two")];
    const volume = new Volume(filesOf(one));
    const { certificates, clock } = store(volumeOf("a", volume));
    expect(certificates.find(one.fingerprint, [])).toBeDefined();
    volume.swap(filesOf(two));
    expect(certificates.find(two.fingerprint, [])).toBeUndefined(); // looked at a moment ago
    await clock.advance(10);
    expect(certificates.find(two.fingerprint, [])).toBeDefined();
    expect(certificates.find(one.fingerprint, [])).toBeDefined();
    expect(certificates.only([])?.fingerprint).toBe(two.fingerprint);
    volume.swap({ "tls.crt": one.certificatePem, "tls.key": two.privateKeyPem });
    await clock.advance(1000);
    expect(certificates.find(two.fingerprint, [])).toBeDefined();
    for (let round = 0; round < 4; round += 1) {
      volume.swap(filesOf(createIdentity(`more ${round}`)));
      await clock.advance(1000);
      certificates.find("", []);
    }
    expect(certificates.find(one.fingerprint, [])).toBeUndefined(); // a few are kept, not all
  });
});

describe("files that cannot be used are named with the reason", () => {
  const good = createIdentity("good");
  const encrypted = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({
    type: "pkcs8",
    format: "pem",
    cipher: "aes-256-cbc",
    passphrase: "x",
  });
  const tls = volumeOf("a", { path: "" } as Volume);
  test.each([
    [{ "tls.crt": good.certificatePem }, "tls.key of volume a (Secret a-secret) is not there"],
    [
      { "tls.crt": "text", "tls.key": good.privateKeyPem },
      "tls.crt of volume a (Secret a-secret) holds no certificate in PEM",
    ],
    [
      { ...filesOf(good), "tls.key": "text" },
      "tls.key of volume a (Secret a-secret) holds no unencrypted private key in PEM",
    ],
    [
      { ...filesOf(good), "tls.key": String(encrypted) },
      "tls.key of volume a (Secret a-secret) holds no unencrypted private key in PEM",
    ],
    [
      { ...filesOf(good), "tls.key": createIdentity("other").privateKeyPem },
      "tls.key of volume a (Secret a-secret) does not belong to tls.crt",
    ],
    [
      { ...filesOf(good), "tls.key": "x".repeat(300_000) },
      "tls.key of volume a (Secret a-secret) has 300000 bytes, expected at most 262144",
    ],
  ])("%#: %2$s", (files, problem) => {
    const { certificates } = store({ ...tls, path: new Volume(files).path });
    expect(certificates.obstacle([{ volume: "a" }])).toBe(problem);
    expect(certificates.only([])).toBeUndefined();
  });

  test("also when it expires while it is in use", async () => {
    const { certificates, clock } = store(volumeOf("a", new Volume(filesOf(good))));
    expect(certificates.obstacle([])).toBeUndefined();
    clock.offsetMs = 8000 * 365 * 86_400_000;
    await clock.advance(1000);
    expect(certificates.obstacle([])).toMatch(/^tls\.crt of volume a \(Secret a-secret\) expired at \d{4}-/);
    expect(certificates.find(good.fingerprint, [])).toBeUndefined();
    expect(store().certificates.obstacle([])).toBe("the pod mounts no Secret that could hold its certificate");
  });

  test("and a volume that is none of the pod's", () => {
    const { certificates } = store(volumeOf("a", new Volume(filesOf(good))));
    expect(certificates.obstacle([{ volume: "b" }])).toBe(
      "the pod has no volume or Secret b that could hold its certificate, but volume a (Secret a-secret)",
    );
  });

  test("nothing of a key is in what is said", () => {
    const broken = good.privateKeyPem.replace("A", "B").slice(0, 150);
    const { certificates } = store({ ...tls, path: new Volume({ ...filesOf(good), "tls.key": broken }).path });
    expect(createPrivateKey(good.privateKeyPem).type).toBe("private");
    expect(certificates.obstacle([])).toBe(
      "tls.key of volume a (Secret a-secret) holds no unencrypted private key in PEM",
    );
  });
});
