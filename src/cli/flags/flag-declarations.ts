// What program.ts declares on several commands: the flags of a group, by what they are about.
import { Option } from "commander";
import type { Command } from "commander";

const headings = {
  kubernetes: "Kubernetes Flags:",
  connection: "Connection Flags:",
  filter: "Filter Flags:",
  preview: "Preview Flags:",
  global: "Global Flags:",
} as const;

export function addInterceptFlags(command: Command): void {
  const hidden = (flags: string, text: string): Option => new Option(flags, text).hideHelp();
  command
    .addOption(
      new Option(
        "-p, --port <local[:port]>",
        "local port (default: 8080), and the service's port by name or number when it has several; 5353:53/udp; repeatable",
      ).argParser(appendValue),
    )
    .option("--service <name>", "service to intercept, when the workload has several")
    .option(
      "-w, --workload <name>",
      "workload to intercept, when it has another name than the intercept; KIND/NAME too",
    )
    .addOption(hidden("-d, --deployment <name>", "older spelling of --workload"))
    .option(
      "--agent <kind>",
      "auto (default: ephemeral where it can be, else sidecar), ephemeral (no pod is restarted) or sidecar (one rollout)",
    )
    .option("--existing <what>", "connections that are open already: keep (default), drain (close when idle) or reset")
    .option("--on-refused <who>", "when the local process does not take a connection: app (answers, default) or fail")
    .option(
      "--probes <who>",
      "who answers the kubelet's probes: app (default), agent (says that all is well) or laptop",
    )
    .option("--address <host>", "where the local process listens (default: 127.0.0.1)")
    .option("--mechanism <name>", "tcp, or http with a filter; it follows from the other flags")
    .addOption(hidden("--http-match <filter>", "older spelling of --http-header").argParser(appendValue))
    .addOption(hidden("-l, --local-only", "no workload and no traffic, names only; deprecated: connect -n NAMESPACE"))
    .option("--no-inspect", "team mates do not see its requests in the dashboard");
  addBelongingsFlags(command);
  addFilterFlags(command);
  addPreviewFlags(command);
}

/** Those that mean nothing there: said clearly when they are given. */
export function hideFlags(command: Command, names: readonly string[]): void {
  for (const option of command.options) if (names.includes(option.long ?? "")) option.hideHelp();
}

export function addIngestFlags(command: Command): void {
  command.option(
    "--agent <kind>",
    "auto (default: only where the container has no programs to be read by), ephemeral or sidecar (one rollout)",
  );
  addBelongingsFlags(command);
}

/** What a command is given of the pod: its environment and its volumes. */
function addBelongingsFlags(command: Command): void {
  command
    .option("-c, --container <name>", "container whose environment is meant, when there are several")
    .option("-e, --env-file <path>", "write the pod's environment to a file")
    .option(
      "--env-syntax <name>",
      "of that file: compose (default), docker, sh, csh, ps (each of these three also with :export), cmd or json",
    )
    .option("-j, --env-json <path>", "write the pod's environment to a file as JSON")
    .addOption(
      new Option("--env-exclude <list>", "variables that are left out, * for any letters").argParser(appendList),
    )
    .option(
      "--mount <bool|path>",
      "where the container's volumes are copied to (default: true, a directory of its own)",
    )
    .addOption(
      new Option(
        "--copy-volume <name>",
        "also copy a volume that only the container has, once; by its name or mount path",
      ).argParser(appendValue),
    )
    .option("--copy-limit <size>", "the most that one --copy-volume may be (default: 256Mi)")
    .addOption(
      new Option(
        "--to-pod <port[/udp]>",
        "port of the pod's own 127.0.0.1 that is wanted on this laptop's, a sidecar's say; repeatable",
      ).argParser(appendValue),
    )
    .option("--detailed-output", "with --output or --format: one object with everything, the pod's environment too");
}

/** All of them together must hold; each compiles to CEL. */
function addFilterFlags(command: Command): void {
  const repeatable = (flags: string, text: string): Option => new Option(flags, text).argParser(appendValue);
  command
    .optionsGroup(headings.filter)
    .addOption(
      repeatable("--http-header <NAME=REGEX>", "requests whose header matches; auto: a header of this intercept's own"),
    )
    .option("--http-path-equal <path>", "requests of this path")
    .option("--http-path-prefix <prefix>", "requests whose path begins so")
    .option("--http-path-regex <regex>", "requests whose whole path matches")
    .addOption(new Option("--http-method <list>", "requests with one of these methods").argParser(appendList))
    .addOption(repeatable("--http-query <NAME=REGEX>", "requests with a query parameter that matches"))
    .option("--http-body <regex>", "requests with a match somewhere in the body, which is 64 KiB at most")
    .addOption(
      repeatable("--grpc-method <SERVICE/METHOD>", "requests of a gRPC method; SERVICE/* for all of a service"),
    )
    .addOption(repeatable("--match <CEL>", "requests for which the expression is true"))
    .option("--tls-cert <VOLUME[:CERT,KEY]>", "the pod's volume or Secret with the certificate, to read TLS by")
    .option("--plaintext", "send what was read from TLS to the local process as plain HTTP")
    .addOption(new Option("--http-plaintext", "older spelling of --plaintext").hideHelp())
    .option("--allow-overlap", "also when somebody else's intercept may take the same requests");
}

/** Of a copy of the traffic there is no preview. */
export const previewFlagNames: readonly string[] =
  "--preview-url --preview-url-banner --ingress-host --ingress-port --ingress-tls --ingress-l5 --ingress-insecure --ingress-ca --add-request-headers --team".split(
    " ",
  );

function addPreviewFlags(command: Command): void {
  command
    .optionsGroup(headings.preview)
    .option(
      "-u, --preview-url",
      "a URL for others, who reach this laptop by it (default: when logged in at a terminal)",
    )
    .addOption(new Option("--no-preview-url").hideHelp())
    .option("-b, --preview-url-banner", "a banner on the preview's pages (default: true)")
    .addOption(new Option("--no-preview-url-banner").hideHelp())
    .addOption(new Option("--no-banner").hideHelp());
  addIngressFlags(command);
}

/** Of `preview create` as well. */
export function addIngressFlags(command: Command): void {
  command
    .option("--ingress-host <host>", "address of the cluster's ingress, as service.namespace; asked for when left out")
    .option("--ingress-port <port>", "its TCP port")
    .option("--ingress-tls", "that port speaks TLS")
    .addOption(new Option("--no-ingress-tls").hideHelp())
    .option("--ingress-l5 <host>", "host name that it expects, in TLS and in the Host header")
    .option("--ingress-ca <file>", "PEM file of who else may have signed the ingress's certificate")
    .option("--ingress-insecure", "do not check the ingress's certificate")
    .addOption(
      new Option("--add-request-headers <list>", "NAME=VALUE,…: added to each request of the preview").argParser(
        appendList,
      ),
    )
    .addOption(
      new Option("--preview-url-add-request-headers <list>", "longer spelling of --add-request-headers")
        .argParser(appendList)
        .hideHelp(),
    )
    .option("--team <name>", "team of the cloud server, when you are in several");
}

/** Also what a place is called with; commands that never connect do not take them. */
export function addConnectFlags(command: Command): void {
  command
    .optionsGroup(headings.connection)
    .option("--name <name>", "name of this connection, to have several at once; --use chooses one later")
    .option("--manager-namespace <namespace>", "namespace of the traffic-manager")
    .addOption(
      new Option("--mapped-namespaces <list>", "namespaces whose names resolve; all when left out").argParser(
        appendList,
      ),
    )
    .addOption(new Option("--also-proxy <list>", "further subnets to route to the cluster").argParser(appendList))
    .addOption(new Option("--never-proxy <list>", "subnets that are never routed to the cluster").argParser(appendList))
    .addOption(
      new Option(
        "--allow-conflicting-subnets <list>",
        "subnets of the cluster that may take a part of a wider route of this machine",
      ).argParser(appendList),
    )
    .addOption(
      new Option(
        "--vnat <list>",
        "subnets that are seen at other addresses; service, pods, also or all; off: not even those in use here",
      ).argParser(appendList),
    )
    .option("--via <workload>", "connections and look-ups leave the cluster's end from a pod of this workload")
    .addOption(
      new Option(
        "--proxy-via <subnet=workload>",
        "connections to a subnet leave from a pod of that workload; service, pods, also and all too; repeatable",
      ).argParser(appendList),
    )
    .option(
      "--transport <way>",
      "auto (default: straight to the traffic-manager where that is possible), port-forward, or direct",
    )
    .option(
      "--direct <way>",
      "for administrators: makes the traffic-manager reachable without the API server; nodeport, loadbalancer or HOST:PORT",
    )
    .option("--image <reference>", "image of traffic-manager and traffic-agent")
    .option("--image-pull-policy <policy>", "Always, IfNotPresent or Never");
}

export function addProxyFlags(command: Command): void {
  command
    .option("--proxy", "a SOCKS5 and an HTTP proxy on this laptop instead of a network device; needs no root")
    .option("--proxy-socks <port>", "the SOCKS5 proxy's port (default: one that is free)")
    .option("--proxy-http <port>", "the HTTP proxy's port (default: one that is free)");
}

export function addGlobalFlags(program: Command): void {
  program
    .optionsGroup(headings.kubernetes)
    .option("--kubeconfig <path>", "kubeconfig file")
    .option("--context <name>", "context of the kubeconfig")
    .option("--cluster <name>", "cluster of the kubeconfig")
    .option("--user <name>", "user of the kubeconfig")
    .option("-n, --namespace <namespace>", "namespace of the connection, or of the workload that is meant")
    .option("--server <url>", "address of the Kubernetes API server")
    .option("--token <token>", "bearer token for the API server")
    .option("--as <user>", "user to impersonate")
    .addOption(new Option("--as-group <group>", "group to impersonate; repeatable").argParser(appendValue))
    .option("--certificate-authority <path>", "CA certificate of the API server")
    .option("--client-certificate <path>", "client certificate for TLS")
    .option("--client-key <path>", "client key for TLS")
    .option("--insecure-skip-tls-verify", "do not check the API server's certificate")
    .option("--tls-server-name <name>", "name expected in the API server's certificate")
    .option("--request-timeout <duration>", "limit of a single request to the API server")
    .optionsGroup(headings.global)
    .option("--output <syntax>", "json, json-stream or yaml, in an envelope {cmd, stdout, stderr, err}")
    .option("--format <syntax>", "json, json-stream or yaml, the bare result")
    .option("--use <regex>", "the connection that is meant, by its name, when there are several")
    .option("--progress <mode>", "auto, plain or quiet")
    .option("--config <path>", "configuration file")
    .option("--verbose", "show what caused an error")
    .addOption(new Option("--no-report", "accepted for compatibility: nothing is ever reported").hideHelp());
}

const appendValue = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  value,
];

export const appendList = (value: string, before: readonly string[] | undefined): readonly string[] => [
  ...(before ?? []),
  ...value.split(",").filter((item) => item !== ""),
];
