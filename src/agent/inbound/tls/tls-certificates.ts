// The certificates that the pod has mounted, and their keys: read from the application's own volumes, which the agent
// has mounted as well, so that no key ever leaves the pod. Which of them a caller is shown is not chosen here: it is the
// one whose key the application itself shows (`find`).
// Invariants: files are read again when they change (the kubelet swaps a link), and looked at no oftener than is said
// below; what was read before stays good for an application that still shows it. No key and no certificate is ever logged.
import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import type { Clock } from "#base/clock.ts";
import { fingerprintOf } from "#tunnel/identity.ts";
import type { AgentPort, CertificateVolume } from "#wire/agent-api.ts";
import type { CertificateChoice, InterceptTls } from "#wire/intercept-tls.ts";

/** What the Secrets of Kubernetes' type `kubernetes.io/tls` hold. */
const usualFiles = { certificateFile: "tls.crt", keyFile: "tls.key" } as const;
/** chosen: a pair in use is looked at this often at most … */
const freshMs = 1000;
/** … unless the application shows a key that is not known yet. */
const unknownMs = 10;
/** chosen: an application that has not taken a new certificate for so many changes is not served. */
const keptPairs = 4;
/** chosen: a chain of many certificates. */
const maxFileBytes = 256 * 1024;
/** chosen: directories other than the volumes' own that were asked for. */
const maxSources = 64;

/** A certificate that the agent can show. */
export interface PodCertificate {
  /** Of its public key. */
  readonly fingerprint: string;
  /** In PEM, as mounted. */
  readonly chain: Buffer;
  readonly key: Buffer;
  readonly notAfterMs: number;
}

export interface TlsCertificatesOptions {
  readonly volumes: readonly CertificateVolume[];
  readonly clock: Clock;
}

export class TlsCertificates {
  readonly #options: TlsCertificatesOptions;
  readonly #sources = new Map<string, CertificateSource>();

  constructor(options: TlsCertificatesOptions) {
    this.#options = options;
  }

  /** The pair whose key this is; undefined when the pod has none. */
  find(fingerprint: string, choices: readonly CertificateChoice[]): PodCertificate | undefined {
    const sources = [...this.#named(choices), ...this.#usual()];
    for (const maxAgeMs of [freshMs, unknownMs]) {
      for (const source of sources) {
        const found = source.pairs(maxAgeMs).find((pair) => pair.fingerprint === fingerprint);
        if (found !== undefined) return found;
      }
    }
    return undefined;
  }

  /** The only one there is, for when the application cannot be asked. */
  only(choices: readonly CertificateChoice[]): PodCertificate | undefined {
    const sources = choices.length > 0 ? this.#named(choices) : this.#usual();
    const latest = sources.flatMap((source) => source.pairs().slice(0, 1));
    return latest.length === 1 ? latest[0] : undefined;
  }

  /** Why no certificate can be shown, in one sentence; undefined when one can. */
  obstacle(choices: readonly CertificateChoice[]): string | undefined {
    const sources = choices.length > 0 ? this.#named(choices) : this.#usual();
    if (sources.some((source) => source.pairs().length > 0)) return undefined;
    const wrong = sources.find(({ isAbsent }) => choices.length > 0 || !isAbsent);
    if (wrong?.problem !== undefined) return wrong.problem;
    const names = this.#options.volumes.map(describeVolume).join(", ");
    if (names === "") return "the pod mounts no Secret that could hold its certificate";
    const { certificateFile, keyFile } = usualFiles;
    const [choice] = choices;
    return choice === undefined
      ? `none of the pod's volumes has ${certificateFile} and ${keyFile} (${names})`
      : `the pod has no volume or Secret ${choice.volume} that could hold its certificate, but ${names}`;
  }

  #usual(): readonly CertificateSource[] {
    return this.#options.volumes.map((volume) => this.#source(volume, usualFiles));
  }

  #named(choices: readonly CertificateChoice[]): readonly CertificateSource[] {
    return choices.flatMap(({ volume: name, certificateFile, keyFile }) => {
      const files = {
        certificateFile: certificateFile ?? usualFiles.certificateFile,
        keyFile: keyFile ?? usualFiles.keyFile,
      };
      const named = this.#options.volumes.filter((volume) => volume.name === name || volume.secret === name);
      return named.map((volume) => this.#source(volume, files));
    });
  }

  #source(volume: CertificateVolume, files: CertificateFiles): CertificateSource {
    const key = [volume.name, files.certificateFile, files.keyFile].join("\n");
    let source = this.#sources.get(key);
    if (source === undefined) {
      source = new CertificateSource(volume, files, this.#options.clock);
      if (this.#sources.size < maxSources) this.#sources.set(key, source);
    }
    return source;
  }
}

/** Why a filter on this port would never match; undefined where only its callers can tell. */
export function whyUnreadable(
  certificates: TlsCertificates,
  { containerPort, tls: spokenByName }: AgentPort,
  tls: InterceptTls | undefined,
): string | undefined {
  const named = tls?.certificate;
  if (named === undefined && spokenByName !== true) return undefined;
  const obstacle = certificates.obstacle(named === undefined ? [] : [named]);
  if (obstacle === undefined) return undefined;
  const say = named === undefined ? "; --tls-cert names the volume and the files that hold it" : "";
  return `port ${containerPort} speaks TLS, which a filter cannot read: ${obstacle}${say}`;
}

function describeVolume({ name, secret }: CertificateVolume): string {
  return secret === undefined || secret === name ? `volume ${name}` : `volume ${name} (Secret ${secret})`;
}

interface CertificateFiles {
  readonly certificateFile: string;
  readonly keyFile: string;
}

/** One pair of files, and what they held before. */
class CertificateSource {
  readonly #volume: CertificateVolume;
  readonly #files: CertificateFiles;
  readonly #clock: Clock;
  #pairs: readonly PodCertificate[] = [];
  #problem: string | undefined;
  #isAbsent = false;
  #stamp: string | undefined;
  #lookedMs: number | undefined;

  constructor(volume: CertificateVolume, files: CertificateFiles, clock: Clock) {
    this.#volume = volume;
    this.#files = files;
    this.#clock = clock;
  }

  /** Why the files as they are now cannot be used. */
  get problem(): string | undefined {
    return this.#problem;
  }
  /** There is no certificate at all: the volume is for something else. */
  get isAbsent(): boolean {
    return this.#isAbsent;
  }

  /** That which is mounted first, then what was before it and may still be shown. */
  pairs(maxAgeMs = freshMs): readonly PodCertificate[] {
    this.#refresh(maxAgeMs);
    return this.#pairs.filter((pair) => this.#isInDate(pair));
  }

  #isInDate({ notAfterMs }: PodCertificate): boolean {
    return notAfterMs > this.#clock.wallMs();
  }

  #refresh(maxAgeMs: number): void {
    const nowMs = this.#clock.now();
    if (this.#lookedMs !== undefined && nowMs - this.#lookedMs < maxAgeMs) return;
    this.#lookedMs = nowMs;
    try {
      const stamp = this.#stampOf();
      const [latest] = this.#pairs;
      if (stamp === this.#stamp && latest !== undefined && this.#isInDate(latest)) return;
      const pair = this.#read();
      this.#pairs = [pair, ...this.#pairs.filter(({ fingerprint }) => fingerprint !== pair.fingerprint)].slice(
        0,
        keptPairs,
      );
      this.#stamp = stamp;
      this.#problem = undefined;
    } catch (error) {
      this.#stamp = undefined;
      this.#problem = error instanceof Unusable ? error.message : `${this.#name} cannot be used`;
      this.#isAbsent = error instanceof Unusable && error.isAbsent;
    }
  }

  get #name(): string {
    return `${this.#files.certificateFile} of ${describeVolume(this.#volume)}`;
  }

  /** Other than before when a file was replaced; the kubelet gives each its own inode. */
  #stampOf(): string {
    return Object.values(this.#files)
      .map((file) => this.#try(file, (path) => statSync(path)))
      .map(({ ino, mtimeMs, size }) => `${ino} ${mtimeMs} ${size}`)
      .join(", ");
  }

  #read(): PodCertificate {
    const { certificateFile, keyFile } = this.#files;
    const cert = this.#readFile(certificateFile);
    const key = this.#readFile(keyFile);
    const leaf = this.#parse(certificateFile, "no certificate in PEM", () => new X509Certificate(cert));
    const secret = this.#parse(keyFile, "no unencrypted private key in PEM", () => createPrivateKey(key));
    if (!leaf.checkPrivateKey(secret)) throw this.#unusable(keyFile, `does not belong to ${certificateFile}`);
    this.#checkDates(certificateFile, leaf);
    this.#parse(certificateFile, "a certificate that TLS does not take", () => createSecureContext({ cert, key }));
    const notAfterMs = leaf.validToDate.getTime();
    return { fingerprint: fingerprintOf(leaf.publicKey), chain: cert, key, notAfterMs };
  }

  #checkDates(file: string, { validFromDate, validToDate }: X509Certificate): void {
    const nowMs = this.#clock.wallMs();
    if (validToDate.getTime() <= nowMs) throw this.#unusable(file, `expired at ${validToDate.toISOString()}`);
    if (validFromDate.getTime() > nowMs) {
      throw this.#unusable(file, `is not valid before ${validFromDate.toISOString()}`);
    }
  }

  #readFile(file: string): Buffer {
    return this.#try(file, (path) => {
      const stats = statSync(path);
      if (!stats.isFile()) throw this.#unusable(file, "is not a file");
      if (stats.size > maxFileBytes)
        throw this.#unusable(file, `has ${stats.size} bytes, expected at most ${maxFileBytes}`);
      return readFileSync(path);
    });
  }

  #try<T>(file: string, work: (path: string) => T): T {
    try {
      return work(join(this.#volume.path, file));
    } catch (error) {
      if (error instanceof Unusable) throw error;
      const { code = "" } = error as NodeJS.ErrnoException;
      const why = code === "EACCES" ? "may not be read by the traffic-agent's user" : `cannot be read (${code})`;
      throw this.#unusable(file, code === "ENOENT" ? "is not there" : why, code === "ENOENT");
    }
  }

  #parse<T>(file: string, what: string, work: () => T): T {
    try {
      return work();
    } catch {
      throw this.#unusable(file, `holds ${what}`); // the parser's own words could hold a part of the key
    }
  }

  #unusable(file: string, why: string, isAbsent = false): Unusable {
    return new Unusable(`${file} of ${describeVolume(this.#volume)} ${why}`, isAbsent);
  }
}

class Unusable extends Error {
  readonly isAbsent: boolean;

  constructor(message: string, isAbsent: boolean) {
    super(message);
    this.isAbsent = isAbsent;
  }
}
