// CLI ↔ user daemon (PROTOCOL §8.4): JSON-RPC over a Unix socket 0600 whose peer is checked by SO_PEERCRED.
// A command is one connection; progress arrives as notifications while its call is open.
import { z } from "zod";
import { agentModes, transportWishes } from "./connect-choices.ts";
import { dnsWishesSchema } from "./dns-wishes.ts";
import { ingestInfoSchema } from "./ingest.ts";
import { interceptTlsSchema } from "./intercept-tls.ts";
import { kubeFlagsSchema } from "./kube-flags.ts";
import {
  existingModes,
  filterTextSchema,
  interceptInfoSchema,
  interceptKindSchema,
  onRefusedSchema,
  probeModeSchema,
  workloadKinds,
  workloadSchema,
} from "./manager-api.ts";
import { podPortSchema } from "./pod-port.ts";
import { cloudStatusSchema, previewControlApi } from "./preview.ts";
import { cloudInstallation } from "./cloud-install.ts";
import { method } from "./rpc.ts";
import { whyAnswerSchema, whyParamsSchema } from "./why.ts";

const empty = z.object({});
const name = z.string().min(1).max(253);
const namespace = z.string().max(63);
const names = z.array(z.string().max(253)).max(10_000);
const warnings = z.array(z.string());

const proxyPort = z.number().int().min(0).max(65_535);
/** The cluster without a device of the laptop's and without root: for programs that use a proxy, and those of `run`. */
const rootlessSchema = z.object({
  /** Ports on the loopback, 0 for one that is free. */
  proxy: z.object({ socksPort: proxyPort, httpPort: proxyPort }).optional(),
});

const workloadWishSchema = z.object({ name, kind: z.enum(workloadKinds).optional() });

/** How to reach, and if missing install, the manager. Shared by every call that may connect. */
export const connectOptionsSchema = z.object({
  kube: kubeFlagsSchema,
  managerNamespace: namespace.optional(),
  mappedNamespaces: names.optional(),
  alsoProxy: z.array(z.string().max(64)).max(1000).optional(),
  neverProxy: z.array(z.string().max(64)).max(1000).optional(),
  /** Ranges inside of which the cluster may take a part of a wider route of the laptop. */
  allowConflictingSubnets: z.array(z.string().max(64)).max(1000).optional(),
  /** Ranges that are seen at other addresses: also `service`, `pods`, `also`, `all`; `off`: none, whatever collides. */
  vnat: z.array(z.string().max(64)).max(1000).optional(),
  /** Where those other addresses are taken from. */
  virtualSubnet: z.string().max(64).optional(),
  /** Of config.yml; the kubeconfig's extension goes before them. */
  dns: dnsWishesSchema.optional(),
  /** Connections and look-ups leave from a pod of this workload, of the connection's namespace. */
  via: workloadWishSchema.optional(),
  /** Connections to these addresses leave from a pod of that workload: ranges, `service`, `pods`, `also`, `all`. */
  proxyVia: z
    .array(z.object({ subnet: z.string().max(64), workload: workloadWishSchema }))
    .max(64)
    .optional(),
  /** Container image of manager and agents; the built-in reference when absent. */
  image: z.string().max(512).optional(),
  imagePullPolicy: z.enum(["Always", "IfNotPresent", "Never"]).optional(),
  rootless: rootlessSchema.optional(),
  /** How the link to the manager goes; `auto` when left out. */
  transport: z.enum(transportWishes).optional(),
  /** Makes the manager's direct port reachable: `nodeport`, `loadbalancer`, or where something else leads to it. */
  direct: z.string().max(300).optional(),
  /** Which of these the command means; the others are as the connection has them that stands, if one does. */
  meant: z.array(z.string().max(64)).max(64).optional(),
});
export type ConnectOptions = z.infer<typeof connectOptionsSchema>;

export const connectionSchema = z.object({
  context: z.string(),
  server: z.string(),
  namespace: z.string(),
  managerNamespace: z.string(),
  managerVersion: z.string(),
  mappedNamespaces: names,
  /** The workload from whose pods connections and look-ups leave. */
  via: z.string().optional(),
  /** Subnets whose connections leave from other workloads' pods. */
  proxyVia: z.array(z.object({ subnet: z.string(), workload: z.string() })).optional(),
  /** As it was asked for. */
  rootless: rootlessSchema.optional(),
  /** Where its proxies listen: `127.0.0.1:1080`. */
  proxy: z.object({ socks: z.string(), http: z.string() }).optional(),
});
export type Connection = z.infer<typeof connectionSchema>;

/** An intercept without traffic (`--local-only`): the short names of its namespace resolve. */
const localOnlySchema = z.object({ name, namespace });
export type LocalOnlyInfo = z.infer<typeof localOnlySchema>;

/** A fact that was checked when asked for; `ageMs` tells how long ago. */
const checked = <T extends z.ZodType>(value: T) => z.object({ value, ageMs: z.number() });

export const daemonStatusSchema = z.object({
  version: z.string(),
  executable: z.string(),
  installId: z.string(),
  /** Of the connection, where it was given one. */
  name: z.string().optional(),
  pid: z.number().int(),
  /** `Connected`, `Reconnecting`, or `Not connected`. */
  state: z.enum(["Connected", "Reconnecting", "Not connected"]),
  connection: connectionSchema.optional(),
  /** Why it is reconnecting, in one sentence. */
  problem: z.string().optional(),
  /** Median of the link's last heart-beats; the age is that of the last answer. */
  roundTrip: checked(z.number()).optional(),
  transport: z
    .object({
      name: z.string(),
      protocol: z.string(),
      /** Why it is not another. */
      note: z.string().optional(),
    })
    .optional(),
  /** Since `connect`. */
  linkChanges: z
    .object({
      /** Transports that died; the link went on over another. */
      lost: z.number().int(),
      /** Transports that were left for another one. */
      replaced: z.number().int(),
      /** How often the link began anew, which ends the connections that it carried. */
      renewed: z.number().int(),
    })
    .optional(),
  helper: z.object({ version: z.string(), pid: z.number().int(), device: z.string() }).optional(),
  dns: z
    .object({
      /** `resolved` (systemd-resolved) or `nft` (redirect). */
      hook: z.string(),
      localAddress: z.string(),
      upstreams: z.array(z.string()),
      clusterDomain: z.string(),
      /** Below it are this connection's names alone. */
      suffix: z.string().optional(),
      /** Bare names are another connection's. */
      suffixOnly: z.boolean().optional(),
      excludeSuffixes: z.array(z.string()),
      includeSuffixes: z.array(z.string()),
      excludes: z.array(z.string()).optional(),
      mappings: z.array(z.object({ name: z.string(), aliasFor: z.string() })).optional(),
      lookupTimeoutMs: z.number().optional(),
      error: z.string().optional(),
    })
    .optional(),
  routing: z
    .object({
      subnets: z.array(z.string()),
      /** Since the cluster said which its ranges are. */
      ageMs: z.number().optional(),
      alsoProxy: z.array(z.string()),
      neverProxy: z.array(z.string()),
      /** What may take a part of a wider route of this machine. */
      overlap: z.array(z.string()).optional(),
      /** Ranges of the cluster that this laptop sees at other addresses, and why when nobody asked for it. */
      translated: z
        .array(z.object({ subnet: z.string(), seenAs: z.string(), because: z.string().optional() }))
        .optional(),
      /** Ranges of an address family that the cluster did not have at `connect`, or that this laptop has switched off. */
      unrouted: z.array(z.string()).optional(),
      laptopHasIpv6: z.boolean().optional(),
      /** Ranges that this machine reaches by itself, so that they are not routed. */
      reached: z.array(z.string()).optional(),
    })
    .optional(),
  manager: z.object({ version: z.string(), podName: z.string(), image: z.string() }).optional(),
  intercepts: z.array(interceptInfoSchema),
  /** Programs of `run`; left out while there are none. */
  programs: z.number().int().optional(),
  /** Left out while there are none. */
  ingests: z.array(ingestInfoSchema).optional(),
  localOnly: z.array(localOnlySchema).optional(),
  cloud: cloudStatusSchema.optional(),
});
export type DaemonStatus = z.infer<typeof daemonStatusSchema>;

export const listedWorkloadSchema = z.object({
  name: z.string(),
  namespace: z.string(),
  kind: z.enum(workloadKinds),
  /** Why it cannot be intercepted; absent when it can. */
  notInterceptableReason: z.string().optional(),
  /** Version of the traffic-agent in the workload's pod template, or of one that runs in its pods; absent without. */
  agentVersion: z.string().optional(),
  /** A container of it that a laptop's process replaces, and whose. */
  replaced: z.object({ container: z.string(), by: z.string() }).optional(),
  /** Names of the services that select it; left out where services may not be listed. */
  services: names.optional(),
  /** Everybody's intercepts of the workload; one's own have `mine`. */
  intercepts: z.array(interceptInfoSchema.extend({ mine: z.boolean() })),
  /** One's own; left out when there are none. */
  ingests: z.array(ingestInfoSchema).optional(),
});
export type ListedWorkload = z.infer<typeof listedWorkloadSchema>;

/** What `why` says of one workload. */
export const whyWorkloadSchema = z.object({
  workload: workloadSchema,
  pods: z.array(whyAnswerSchema.extend({ podName: z.string() })),
  /** Everybody's intercepts of it, those whose laptops are away too. */
  intercepts: z.array(interceptInfoSchema.extend({ mine: z.boolean() })),
});
export type WhyWorkload = z.infer<typeof whyWorkloadSchema>;

/** What a call wants of the container's belongings. */
const podWants = {
  wantEnvironment: z.boolean(),
  /** Wants the container's volumes as files; without it nothing is copied. */
  volumes: z
    .object({
      /** Where they go; left out: a folder of the daemon's. */
      path: z.string().max(4096).optional(),
      /** Names or mount paths of those that only the container has. */
      copy: names,
      /** Of each of these. */
      limitBytes: z.number().int().positive(),
    })
    .optional(),
  /** Ports of the pod that are wanted on this laptop. */
  toPod: z.array(podPortSchema).max(64).optional(),
};
const podGiven = {
  /** Present when it was wanted and could be read. */
  environment: z.record(z.string(), z.string()).optional(),
  /** Present when there was something to copy: each mount is `root` and its path. */
  volumes: z.object({ root: z.string(), mounts: z.array(z.string()) }).optional(),
};

/** Stands for the id that the session gets when it connects: an intercept's own is `<session id>:<name>`. */
export const unknownSessionId = "00000000-0000-0000-0000-000000000000";

/** Methods that the CLI calls. */
export const controlApi = {
  hello: method(
    z.object({ version: z.string() }),
    z.object({
      version: z.string(),
      pid: z.number().int(),
      executable: z.string(),
      installId: z.string(),
      connected: z.boolean(),
      helperRunning: z.boolean(),
    }),
  ),
  /** Has the system's service start a helper; `problem` says why none came, and the CLI starts one as ever. */
  callHelper: method(empty, z.object({ problem: z.string().optional() })),
  /** Waits, within its own deadline, for the helper that the CLI starts meanwhile. */
  connect: method(
    connectOptionsSchema,
    z.object({
      /** False when this was the place it was connected to already. */
      fresh: z.boolean(),
      installedManager: z.boolean(),
      connection: connectionSchema,
      warnings,
    }),
  ),
  disconnect: method(empty, z.object({ wasConnected: z.boolean() })),
  status: method(empty, daemonStatusSchema),
  list: method(
    z.object({ namespace: namespace.optional() }),
    z.object({
      workloads: z.array(listedWorkloadSchema),
      /** One's own; left out when there are none. */
      localOnly: z.array(localOnlySchema).optional(),
      warnings,
    }),
  ),
  intercept: method(
    z.object({
      /** A service or a workload. */
      name,
      /** What becomes of the traffic: `intercept` when left out. */
      attachment: interceptKindSchema.optional(),
      service: name.optional(),
      workload: name.optional(),
      /** Of the workload, when its kind was said as well. */
      kind: z.enum(workloadKinds).optional(),
      namespace: namespace.optional(),
      /** Container whose port and environment are meant, when there are several. */
      container: name.optional(),
      /** `local[:service port name or number]`, as given. */
      ports: z.array(z.string().max(64)).max(64),
      /** Where the laptop's process listens. */
      address: name,
      /** The intercept ends with this control connection. */
      ownedByConnection: z.boolean(),
      agent: z.enum(agentModes).optional(),
      /** What becomes of connections that are older; `keep` when left out. */
      existing: z.enum(existingModes).optional(),
      /** Who answers when the laptop's process does not take a connection; `app` when left out. */
      onRefused: onRefusedSchema.optional(),
      /** Who answers the kubelet's probes; `app` when left out. */
      probes: probeModeSchema.optional(),
      /** Which requests of HTTP it takes, everything when left out; `unknownSessionId` in place of the session's id. */
      filter: filterTextSchema.optional(),
      allowOverlap: z.boolean().optional(),
      /** How connections that speak TLS are read, for the filter. */
      tls: interceptTlsSchema.optional(),
      /** Whether the team may look at its requests by a cloud server; true when left out. */
      inspect: z.boolean().optional(),
      ...podWants,
    }),
    z.object({
      info: interceptInfoSchema,
      ...podGiven,
      warnings,
    }),
  ),
  /** Environment and files of a container, and no traffic. */
  ingest: method(
    z.object({
      /** A workload, or a service of it. */
      name,
      kind: z.enum(workloadKinds).optional(),
      namespace: namespace.optional(),
      container: name.optional(),
      /** `auto`: an agent comes only where the container cannot be read without. */
      agent: z.enum(agentModes).optional(),
      /** It ends with this control connection. */
      ownedByConnection: z.boolean(),
      ...podWants,
    }),
    z.object({ info: ingestInfoSchema, ...podGiven, warnings }),
  ),
  /** No workload and no traffic: the short names of a namespace resolve. */
  localOnly: method(
    z.object({ name, namespace: namespace.optional(), ownedByConnection: z.boolean() }),
    z.object({ info: localOnlySchema }),
  ),
  /** A network of its own for one program, which somebody in it is to bring to `socket`. It ends with this connection. */
  enter: method(empty, z.object({ socket: z.string(), id: z.number().int() })),
  /** The program has ended. A connection that was there for such programs alone ends with the last, and the daemon. */
  leaveEntered: method(empty, z.object({ quits: z.boolean() })),
  /** Whatever has that name: the intercept, and the ingests of a workload. */
  leave: method(
    z.object({
      name,
      namespace: namespace.optional(),
      /** Only the ingest of this container. */
      container: name.optional(),
      /** Only this, for whoever began it. */
      only: z.enum(["intercept", "ingest", "local-only"]).optional(),
    }),
    z.object({ warnings: warnings.optional() }),
  ),
  /** What the agents of a workload tell of its requests. */
  why: method(
    z.object({
      /** An intercept, or a workload that is intercepted; one's own intercepts when left out. */
      name: name.optional(),
      namespace: namespace.optional(),
      ...whyParamsSchema.shape,
    }),
    z.object({ workloads: z.array(whyWorkloadSchema), warnings }),
  ),
  /** Ends somebody else's intercept. */
  revoke: method(
    z.object({
      /** Its name, or its id. */
      name: z.string().min(1).max(400),
      /** Whose, when several people have one of that name: `user@host`, or `user`. */
      user: z.string().min(1).max(300).optional(),
      namespace: namespace.optional(),
      /** Only says which it would be. */
      find: z.boolean(),
    }),
    z.object({ info: interceptInfoSchema }),
  ),
  ...previewControlApi,
  /** A page on this machine that shows the requests of one's own intercepts. */
  inspect: method(
    z.object({
      /** Names of headers and fields that are hidden, too; `*` stands for anything. */
      hide: z.array(z.string().min(1).max(100)).max(100),
    }),
    z.object({
      url: z.string(),
      /** Good once, for a browser that is started; absent where other users of the machine could use it. */
      openUrl: z.string().optional(),
    }),
  ),
  /** Ends intercepts and traffic, then daemon and helper; answered just before the daemon exits. */
  quit: method(empty, z.object({ wasConnected: z.boolean() })),
  /** Manifests with the agent in them; needs no connection and changes nothing. */
  genyaml: method(
    z.object({
      target: connectOptionsSchema,
      namespace: namespace.optional(),
      /** May be left out where the input has one workload. */
      workload: name.optional(),
      kind: z.enum(workloadKinds).optional(),
      /** Documents of a manifest; without them the workload is read from the cluster. */
      input: z
        .array(z.looseObject({ metadata: z.looseObject({}) }))
        .max(1000)
        .optional(),
    }),
    z.object({
      /** The documents of the input, or the workload, with the agent. */
      objects: z.array(z.unknown()),
      parts: z.object({
        config: z.unknown(),
        container: z.unknown(),
        initcontainer: z.unknown(),
        annotations: z.unknown(),
        volume: z.unknown(),
      }),
      /** What remains to be done by those who put the parts in, a sentence each. */
      byHand: warnings,
      warnings,
    }),
  ),
  /** Brings the cloud server into the cluster, or only says as what objects. Needs no connection. */
  cloudInstall: method(
    z.object({ target: connectOptionsSchema, installation: cloudInstallation, onlyPrint: z.boolean() }),
    z.object({ objects: z.array(z.unknown()), done: z.array(z.string()) }),
  ),
  cloudUninstall: method(
    z.object({ target: connectOptionsSchema, namespace: name, deleteData: z.boolean() }),
    z.object({ removed: z.array(z.string()), warnings }),
  ),
  /** Needs no connection: works with the user's credentials alone. */
  uninstall: method(
    z.object({
      target: connectOptionsSchema,
      mode: z.enum(["agents", "all-agents", "everything"]),
      /** Workloads, for mode `agents`. */
      workloads: names,
      namespace: namespace.optional(),
      /** Does nothing, and names them, when intercepts of other people would end. */
      unlessOthers: z.boolean().optional(),
    }),
    z.object({
      /** What was removed, a line each: `Deployment hello: traffic-agent removed`. */
      removed: z.array(z.string()),
      /** Intercepts of other people, a phrase each, because of which nothing was done. */
      others: z.array(z.string()).optional(),
      warnings,
    }),
  ),
} as const;

/** The command after `--`, and what its end undoes. */
export const ownedCommandSchema = z.object({
  pid: z.number().int().positive(),
  /** Start time of the process, since an id is given out again (proc(5), field 22). */
  startTicks: z.number().int().nonnegative(),
  /** It leads a process group of its own, which ends with it. */
  leadsGroup: z.boolean(),
  undo: z.enum(["nothing", "disconnect", "quit"]),
});
export type OwnedCommand = z.infer<typeof ownedCommandSchema>;

/** Notifications that the CLI sends. */
export const controlCallerNotifications = {
  /** The helper cannot be started: sudo refused or failed. Ends the wait of `connect`. */
  "helper.failed": z.object({ message: z.string() }),
  /** The user's command after `--` runs. Should this connection end before `command.ended`, the daemon ends it. */
  "command.started": ownedCommandSchema,
  "command.ended": empty,
} as const;

/** Notifications that the daemon sends. */
export const controlNotifications = {
  /** One line for people about what is going on now, while a call is open. */
  progress: z.object({ text: z.string() }),
  /** An intercept that this connection owns is over, whoever ended it; once. */
  "intercept.ended": z.object({ name: z.string(), reason: z.string().optional() }),
} as const;
