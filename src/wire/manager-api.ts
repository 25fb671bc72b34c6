// Laptop ↔ manager (PROTOCOL §8.1): JSON-RPC on the session's first stream, reached through the API server's
// port-forward to the manager's loopback port.
import { z } from "zod";
import { interceptTlsSchema } from "./intercept-tls.ts";
import { podPortSchema } from "./pod-port.ts";
import { method } from "./rpc.ts";

/** Loopback port of the manager that laptops reach by port-forward. */
export const managerLaptopPort = 8081;
/** Pod port of the manager for agents: TLS 1.3, both keys pinned. */
export const managerAgentPort = 8443;
/** Readiness and metrics (no secrets), pod port. */
export const managerHealthPort = 8080;
/** Where laptops come straight, by TLS, once their session has been proved through a port-forward. */
export const managerDirectPort = 8444;

/** `Rollout` is Argo's; a peer of an older version knows the first three. */
export const workloadKinds = [
  "Deployment",
  "StatefulSet",
  "ReplicaSet",
  "DaemonSet",
  "Rollout",
  "CronJob",
  "Job",
  "Pod",
] as const;
export type WorkloadKind = (typeof workloadKinds)[number];
export const workloadSchema = z.object({
  kind: z.enum(workloadKinds),
  name: z.string().min(1).max(253),
  namespace: z.string().min(1).max(63),
});
export type WorkloadRef = z.infer<typeof workloadSchema>;

/** One text for each workload, for maps and comparisons. */
export function workloadKey({ kind, name, namespace }: WorkloadRef): string {
  return `${namespace}/${kind}/${name}`;
}

export const interceptStates = ["waiting", "active", "suspended", "removed", "error"] as const;
export type InterceptState = (typeof interceptStates)[number];

export const interceptPortSchema = z.object({
  /** Port of the application's container. */
  containerPort: z.number().int().min(1).max(65_535),
  protocol: z.enum(["tcp", "udp"]),
  serviceName: z.string().optional(),
  serviceUid: z.string().optional(),
  servicePort: z.number().int().optional(),
  servicePortName: z.string().optional(),
  /** Where the laptop's process listens. */
  targetHost: z.string().max(253),
  targetPort: z.number().int().min(1).max(65_535),
});
export type InterceptPort = z.infer<typeof interceptPortSchema>;

/** What becomes of connections that are older than an intercept: they stay, are closed when idle, or are reset. */
export const existingModes = ["keep", "drain", "reset"] as const;
export type ExistingMode = (typeof existingModes)[number];

/** Who answers when the laptop's process does not take a connection: the application unless said otherwise, or nobody. */
export const refusedModes = ["app", "fail"] as const;
export type RefusedMode = (typeof refusedModes)[number];
export const onRefusedSchema = z.enum(refusedModes);

/**
 * Who answers the kubelet's probes of an intercepted port: the application, unless said otherwise; the agent, those that
 * the pod declares; or the laptop's process, like everything else.
 */
export const probeModes = ["app", "agent", "laptop"] as const;
export type ProbeMode = (typeof probeModes)[number];
export const probeModeSchema = z.enum(probeModes);

/**
 * What an intercept does to the traffic: takes it, copies it to the laptop while the application answers (`wiretap`), or
 * takes it while the application's container does not run (`replace`).
 */
export const interceptKinds = ["intercept", "wiretap", "replace"] as const;
export type InterceptKind = (typeof interceptKinds)[number];
export const interceptKindSchema = z.enum(interceptKinds);

/** CEL (`src/filter`); its limit of 4 KiB is in bytes. */
export const filterTextSchema = z.string().min(1).max(4096);

export const interceptSpecSchema = z.object({
  /** Unique among the session's own intercepts. */
  name: z.string().min(1).max(253),
  /** `intercept` when left out. A peer that does not name the feature of the same name would take everything. */
  kind: interceptKindSchema.optional(),
  workload: workloadSchema,
  containerName: z.string().max(253),
  /** None only of a replacement, whose application may have none. */
  ports: z.array(interceptPortSchema).max(64),
  /** `keep` when left out. */
  existing: z.enum(existingModes).optional(),
  /** `app` when left out. */
  onRefused: onRefusedSchema.optional(),
  /** `app` when left out, as of peers that do not know it. */
  probes: probeModeSchema.optional(),
  /** Which requests of HTTP it takes. Left out: everything, whatever the protocol. */
  filter: filterTextSchema.optional(),
  /** It may share requests with others' intercepts; whoever came first is asked first. */
  allowOverlap: z.boolean().optional(),
  /** Only with a filter. */
  tls: interceptTlsSchema.optional(),
});
export type InterceptSpec = z.infer<typeof interceptSpecSchema>;

/** How an agent comes to pods: with every pod by the workload's template, or into pods that run. */
export const agentKinds = ["sidecar", "ephemeral"] as const;
export type AgentKind = (typeof agentKinds)[number];

export const callerPathVerdicts = ["verified", "by-passed", "unknown"] as const;

export const interceptInfoSchema = z.object({
  /** `<session id>:<name>`. */
  id: z.string(),
  spec: interceptSpecSchema,
  /** `user@host` of the laptop. */
  client: z.string(),
  sessionId: z.string(),
  state: z.enum(interceptStates),
  /** Why, when the state is `waiting` or `error`. */
  message: z.string(),
  /** Pods whose agents serve it now. */
  pods: z.array(z.object({ name: z.string(), uid: z.string(), ip: z.string() })),
  /** Connections that went to the application because the laptop's process refused them; of a wiretap, copies. */
  refusedByLaptop: z.number().int(),
  /**
   * Of a wiretap: requests, connections and datagrams whose copies the laptop's process took, copies that were cut short
   * or left out, and why the last was. Left out while there are none.
   */
  copies: z.object({ copied: z.number().int(), cut: z.number().int(), reason: z.string().optional() }).optional(),
  /**
   * Whether the application sees its callers' addresses while its agents pass connections to it, and why not. Left out
   * while no agent has told, or an older one does not.
   */
  callerAddress: z.object({ kept: z.boolean(), reason: z.string() }).optional(),
  /**
   * Connections that are older than the intercept and still go to its pods, and why they cannot be counted or closed.
   * Left out while no agent has told, or an older one does not.
   */
  olderConnections: z
    .object({ connections: z.number().int(), callers: z.number().int(), reason: z.string().optional() })
    .optional(),
  /**
   * Connections that its filter could not see into: those that spoke TLS, and why, and those that spoke something other
   * than HTTP. Left out while there are none, and without a filter.
   */
  unreadConnections: z
    .object({ tls: z.number().int(), reason: z.string().optional(), other: z.number().int() })
    .optional(),
  /** How its agents came to the pods: known to the laptop that brought them, not to the manager. */
  agent: z.enum(agentKinds).optional(),
  /** Pods that a rollout replaced for them; told once, to whoever made it. */
  replacedPods: z.number().int().optional(),
  /** Where its container's volumes are on the laptop. Not known to the manager. */
  mountPoint: z.string().optional(),
  /** Ports of its pods that are reached on the laptop. Not known to the manager. */
  toPod: z.array(podPortSchema).optional(),
  /** Where others can look at it, by a cloud server. Not known to the manager. */
  preview: z
    .object({
      id: z.string(),
      url: z.string(),
      /** What the ingress is told to be asked for. */
      l5host: z.string().optional(),
      /** Why nobody gets in by it now. */
      problem: z.string().optional(),
    })
    .optional(),
  /**
   * Whether callers reach the agents, as the laptop that intercepts has tried it from the manager's pod: `by-passed` when
   * somebody else answered or nobody listened, `unknown` when it could not be tried. Not known to the manager.
   */
  callerPath: z
    .object({
      verdict: z.enum(callerPathVerdicts),
      ageMs: z.number(),
      /** Where it was tried with success: `10.1.2.3:8080`, `hello (ClusterIP)`. */
      through: z.array(z.string()),
      reason: z.string().optional(),
    })
    .optional(),
  /** Others that may take the same requests, by `allowOverlap`. */
  overlaps: z
    .array(
      z.object({
        id: z.string(),
        client: z.string(),
        name: z.string(),
        createdAtMs: z.number(),
        filter: z.string().optional(),
        /** It is asked before this one. */
        first: z.boolean(),
      }),
    )
    .optional(),
  createdAtMs: z.number(),
  /** Whose intercepts made way for it, because their laptops had been away for long; only in the answer to its creation. */
  tookOver: z.array(z.object({ client: z.string(), name: z.string(), awaySinceMs: z.number() })).optional(),
});
export type InterceptInfo = z.infer<typeof interceptInfoSchema>;
export type CallerPathState = NonNullable<InterceptInfo["callerPath"]>;

/** An intercept that ended although its owner did not end it. */
export const endedInterceptSchema = z.object({
  /** It had this id. */
  id: z.string(),
  /** Somebody who may do so ended it, or wanted its requests while its laptop had been away for long. */
  reason: z.enum(["revoked", "taken_over"]),
  /** `user@host`, as that laptop calls itself. */
  by: z.string(),
  atMs: z.number(),
});
export type EndedIntercept = z.infer<typeof endedInterceptSchema>;

export const trustedAgentSchema = z.object({
  /** SHA-256 of the agent's public key (SPKI), lower-case hex. */
  fingerprint: z.string().regex(/^[0-9a-f]{64}$/),
  podUid: z.string().max(64),
  podName: z.string().max(253),
  workload: workloadSchema,
});
export type TrustedAgent = z.infer<typeof trustedAgentSchema>;

const empty = z.object({});

/** Of a manager's tunnel to a cloud server; `refused`: the token does not count, or is not one of that cluster. */
export const cloudLinkStates = ["connected", "connecting", "refused"] as const;
export type CloudLinkState = (typeof cloudLinkStates)[number];

/** Methods that the laptop calls. */
export const managerApi = {
  arrive: method(
    z.object({
      /** The person, as `user@host`; shown to team mates, never trusted. */
      client: z.string().max(300),
      installId: z.string().max(64),
      version: z.string().max(64),
      /** The connection's namespace. */
      namespace: z.string().max(63),
    }),
    z.object({
      sessionId: z.string(),
      manager: z.object({
        version: z.string(),
        podName: z.string(),
        /** Addresses that agents dial, `managerAgentPort` behind each. */
        podIps: z.array(z.string()),
        namespace: z.string(),
        fingerprint: z.string(),
      }),
      dns: z.object({ clusterDomain: z.string(), nameservers: z.array(z.string()) }),
      /** KUBERNETES_SERVICE_HOST as the manager's pod sees it, when set. */
      apiServiceHost: z.string().optional(),
      /** Intercepts of this laptop's session before that ended while it was away: they are not to be created again. */
      ended: z.array(endedInterceptSchema).optional(),
    }),
  ),
  "intercept.create": method(
    z.object({
      spec: interceptSpecSchema,
      /** One that is created again on a new link is as old as it was: its turn among others' stays the same. */
      createdAtMs: z.number().optional(),
    }),
    interceptInfoSchema,
  ),
  /** Answers when every agent has confirmed that new connections go to the application. */
  "intercept.remove": method(z.object({ id: z.string() }), empty),
  /** Everybody's intercepts, for conflicts and `list`. */
  "intercept.list": method(empty, z.object({ intercepts: z.array(interceptInfoSchema) })),
  /**
   * These agents may serve this session's intercepts on their workload, once each has named this session itself: a
   * fingerprint alone, read from a log, gives nothing. Adds to earlier calls.
   */
  "agents.trust": method(z.object({ agents: z.array(trustedAgentSchema).max(2000) }), empty),
  /** One DNS message, base64, to the cluster's resolver; the answer as it came. */
  "dns.exchange": method(z.object({ message: z.string().max(90_000) }), z.object({ message: z.string() })),
  /**
   * Lets whoever holds this key go on with this session on `managerDirectPort`, for so long. Only through a port-forward:
   * `denied` on a session that is carried by that port itself.
   */
  "direct.admit": method(
    z.object({ fingerprint: z.string().regex(/^[0-9a-f]{64}$/) }),
    z.object({
      forMs: z.number(),
      /** Addresses of nodes on which a NodePort is open. */
      nodeAddresses: z.array(z.string()),
    }),
  ),
  /**
   * Has the manager open a tunnel to this cloud server, with this token, as long as this session or another that has
   * joined lives. Joined again after each arrival, and when the token changes. Only where the manager names `cloud`.
   */
  "cloud.join": method(
    z.object({
      /** `https://host`; `http://` only for names of loopback. */
      url: z.url().max(500),
      clusterId: z.string().min(1).max(100),
      /** Id of the team that the token is of: each has a tunnel of its own. */
      team: z.string().min(1).max(100),
      token: z.string().min(1).max(500),
      /** PEM; beside those of the system. */
      caCertificates: z.array(z.string().max(20_000)).max(20).optional(),
    }),
    z.object({ state: z.enum(cloudLinkStates), message: z.string().optional() }),
  ),
  /** This session does not want that tunnel any more: the login is over. */
  "cloud.leave": method(z.object({ url: z.url().max(500) }), empty),
  /** What a preview of one of the session's own intercepts dials; goes with the intercept. Replaces what was there. */
  "preview.put": method(
    z.object({
      previewId: z.string().min(1).max(100),
      interceptId: z.string().max(300),
      ingress: z.object({ host: z.string().min(1).max(253), port: z.number().int().min(1).max(65_535) }),
    }),
    empty,
  ),
  "preview.remove": method(z.object({ previewId: z.string().min(1).max(100) }), empty),
  /** Ends the session and its intercepts at once, drained. */
  depart: method(empty, empty),
} as const;

/** Notifications that the manager sends. */
export const managerNotifications = {
  /** The session's own intercepts after each change of state. */
  "intercepts.changed": z.object({ intercepts: z.array(interceptInfoSchema) }),
  /** One of the session's own has ended, and why; before `intercepts.changed` leaves it out. */
  "intercept.ended": endedInterceptSchema,
  /** Of a cloud server that this session has joined. */
  "cloud.changed": z.object({ url: z.string().max(500), state: z.enum(cloudLinkStates), message: z.string() }),
  /** A trusted agent's link ended. */
  "agent.lost": z.object({ podUid: z.string() }),
} as const;
