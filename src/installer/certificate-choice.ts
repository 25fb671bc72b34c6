// Pure: how an intercept with a filter reads TLS on a workload's ports: by what the user says, else the workload's owner;
// and what can be known to fail before anything is touched.
import { AppError } from "#base/error.ts";
import type { PodTemplate, Service } from "#kube/objects.ts";
import { routeServicePorts } from "#kube/workloads/service-ports.ts";
import type { CertificateChoice, InterceptTls } from "#wire/intercept-tls.ts";
import { annotatedCertificate, certificateVolumes } from "./certificate-volumes.ts";
import { speaksTls } from "./port-protocol.ts";

export interface TlsQuery {
  /** For people. */
  readonly what: string;
  readonly template: PodTemplate;
  /** Every service that selects the pods. */
  readonly services: readonly Service[];
  readonly containerPorts: readonly number[];
  readonly wish: InterceptTls | undefined;
}

/** Undefined where nothing says that the ports speak TLS; the agent tells by the first bytes. */
export function chooseTls(query: TlsQuery): InterceptTls | undefined {
  const { wish, template, what } = query;
  const certificate = wish?.certificate ?? ownersChoice(query);
  const volumes = certificateVolumes(template.spec);
  const names = volumes
    .map(({ name, secret }) => (secret === undefined ? name : `${name} (Secret ${secret})`))
    .join(", ");
  const known = volumes.some(({ name, secret }) => [name, secret].includes(certificate?.volume));
  if (certificate !== undefined && !known) {
    throw new AppError(
      "not_interceptable",
      `the pods of ${what} mount no volume or Secret ${certificate.volume} that could hold a certificate`,
      { hint: names === "" ? "they mount none at all" : `they mount ${names}` },
    );
  }
  const port = certificate === undefined ? findTlsPort(query) : undefined;
  if (port !== undefined && volumes.length === 0) {
    throw new AppError(
      "not_interceptable",
      `port ${port} of ${what} speaks TLS by its service's word, which a filter cannot read: its pods mount no Secret that could hold the certificate`,
      { hint: "leave out the filter, mount the certificate's Secret, or say `appProtocol: http` in the service" },
    );
  }
  if (certificate === undefined) return port === undefined ? wish : { ...wish };
  return { ...wish, certificate };
}

function findTlsPort({ template, services, containerPorts }: TlsQuery): number | undefined {
  const { routes } = routeServicePorts(template.spec, services);
  return containerPorts.find((port) =>
    speaksTls(routes.filter(({ containerPort, protocol }) => containerPort === port && protocol === "tcp")),
  );
}

function ownersChoice({ template, containerPorts, what }: TlsQuery): CertificateChoice | undefined {
  for (const port of containerPorts) {
    const found = annotatedCertificate(template, port);
    if (found === undefined) continue;
    if (found.choice !== undefined) return found.choice;
    throw new AppError(
      "not_interceptable",
      `the annotation ${found.annotation} of ${what} is ${JSON.stringify(found.text)}, expected VOLUME[:CERTIFICATE,KEY]`,
    );
  }
  return undefined;
}
