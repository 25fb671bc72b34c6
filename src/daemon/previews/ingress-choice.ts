// What of a cluster's services may be its ingress, best first: those with an address outside, those of an ingress
// controller, and the workload's own. An Ingress that leads to the workload says by which host name it is asked for,
// and whether by TLS.
import type { Ingress, Service, ServicePort } from "#kube/objects.ts";
import type { FoundIngress } from "#wire/preview.ts";

export interface IngressSigns {
  /** As far as they may be listed. */
  readonly services: readonly Service[];
  /** Of the workload's namespace. */
  readonly ingresses: readonly Ingress[];
  /** Services that select the workload, and the port that is meant. */
  readonly own: readonly { readonly name: string; readonly port: number }[];
  readonly namespace: string;
  /** Services of our own lead nowhere. */
  readonly managerNamespace: string;
}

/** chosen: what a person reads. */
const maxFound = 20;

/** Names that ingress controllers and gateways label their services with. */
const controllers = new Set(
  "ingress-nginx nginx-ingress traefik kong haproxy-ingress kubernetes-ingress contour envoy istio-ingressgateway emissary-ingress ambassador gateway".split(
    " ",
  ),
);
/** Services beside a controller that take no requests. */
const besides = /admission|webhook|metrics|default-?backend|headless|validation/;

export function chooseIngress(signs: IngressSigns): FoundIngress[] {
  const asked = askedFor(signs);
  const outside = signs.services.filter((service) => isCandidate(service, signs));
  const known = outside.filter(isController);
  const balanced = outside.filter(({ spec }) => spec.type === "LoadBalancer");
  const found = [
    ...both(balanced.filter((service) => known.includes(service))).map(toFound("load-balancer", asked)),
    ...both(balanced.filter((service) => !known.includes(service))).map(toFound("load-balancer", asked)),
    ...both(known.filter((service) => !balanced.includes(service))).map(toFound("controller", asked)),
    ...ownService(signs),
  ];
  const distinct = new Map(found.filter((item) => item !== undefined).map((item) => [item.host, item]));
  return [...distinct.values()].slice(0, maxFound);
}

interface Asked {
  readonly host: string;
  readonly tls: boolean;
}

/** Undefined when no Ingress leads to the workload by a name of its own. */
function askedFor({ ingresses, own }: IngressSigns): Asked | undefined {
  const names = own.map(({ name }) => name);
  for (const { spec } of ingresses.toSorted(byName)) {
    for (const { host, http } of spec?.rules ?? []) {
      const leads = http?.paths?.some(({ backend }) => names.includes(backend?.service?.name ?? "")) === true;
      if (!leads || host === undefined || host.includes("*")) continue;
      return { host, tls: spec?.tls?.some(({ hosts }) => hosts?.includes(host) === true) === true };
    }
  }
  return undefined;
}

const byName = (a: Pick<Service, "metadata">, b: Pick<Service, "metadata">): number => {
  const [left, right] = [a, b].map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
  return (left ?? "") < (right ?? "") ? -1 : 1;
};
const both = (services: readonly Service[]): readonly Service[] => services.toSorted(byName);

function isCandidate({ metadata, spec }: Service, { managerNamespace }: IngressSigns): boolean {
  if (spec.externalName !== undefined || spec.clusterIP === "None") return false;
  if (metadata.namespace === managerNamespace && metadata.name?.startsWith("traffic-manager") === true) return false;
  return !besides.test(metadata.name ?? "");
}

function isController({ metadata: { name = "", labels = {} } }: Service): boolean {
  const said = ["app.kubernetes.io/name", "app", "istio", "app.kubernetes.io/component"].map(
    (key) => labels[key] ?? "",
  );
  return [...said, name].some((text) => controllers.has(text)) || said.includes("ingressgateway");
}

function toFound(source: FoundIngress["source"], asked: Asked | undefined) {
  return ({ metadata, spec }: Service): FoundIngress | undefined => {
    const ports = (spec.ports ?? []).filter(({ protocol = "TCP" }) => protocol === "TCP");
    const wanted = asked === undefined ? [] : ports.filter((port) => speaksTls(port) === asked.tls);
    const port = bestPort(wanted.length > 0 ? wanted : ports);
    if (port === undefined) return undefined;
    const l5host = asked === undefined ? {} : { l5host: asked.host };
    return { source, host: `${metadata.name}.${metadata.namespace}`, port: port.port, tls: speaksTls(port), ...l5host };
  };
}

/** In the order of the original: named https, 443, named http, 80, any. */
function bestPort(ports: readonly ServicePort[]): ServicePort | undefined {
  const rank = ({ name, port }: ServicePort): number => {
    const at = [name === "https", port === 443, name === "http", port === 80].indexOf(true);
    return at === -1 ? 4 : at;
  };
  return ports.toSorted((a, b) => rank(a) - rank(b))[0];
}

const speaksTls = ({ name, port, appProtocol }: ServicePort): boolean =>
  port === 443 || name === "https" || appProtocol === "https";

function ownService({ own, services, namespace }: IngressSigns): readonly FoundIngress[] {
  return own.slice(0, 1).map(({ name, port }) => {
    const service = services.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);
    const found = service?.spec.ports?.find((item) => item.port === port);
    return { source: "service", host: `${name}.${namespace}`, port, tls: speaksTls(found ?? { port }) };
  });
}
