// Agent ↔ manager (PROTOCOL §8.2): JSON-RPC on the first stream of a TLS link with both keys pinned. Also the agent's
// own configuration, which the installer writes into the container's environment.
import { z } from "zod";
import {
  existingModes,
  filterTextSchema,
  interceptKindSchema,
  interceptPortSchema,
  onRefusedSchema,
  probeModeSchema,
  workloadSchema,
} from "./manager-api.ts";
import { interceptTlsSchema } from "./intercept-tls.ts";
import { method } from "./rpc.ts";

// Applications must not want these: below the ephemeral range, above the ports that people choose (podinfo has 9898).
/** Loopback port of an agent where laptops introduce themselves by port-forward. */
export const agentIntroductionPort = 24_899;
/** First of the ports on which an agent takes over; each intercepted port gets the next. */
export const agentFirstPort = 24_900;
const maxAgentPorts = 64;
/** Pod port of the agent's readiness probe: answers 200 or 503 on GET /ready and nothing else. */
export const agentHealthPort = 24_898;
/** One of these, of which each intercepted port has one: nobody else has business there. */
export const isAgentPort = (port: number): boolean => port >= agentHealthPort && port < agentFirstPort + maxAgentPorts;
/** Environment variable of the agent's container that holds `agentConfigSchema` as JSON. */
export const agentConfigVariable = "TELEPRESENCE_AGENT_CONFIG";
/** The application's environment is repeated in the agent's container under this prefix, to be read by exec. */
export const appEnvironmentPrefix = "_TEL_APP_";
export const agentContainerName = "traffic-agent";
/** Ephemeral containers keep their names for the pod's life, so the agents of one pod are counted: `traffic-agent-1`. */
export const ephemeralAgentPrefix = "traffic-agent-";

export const agentPortSchema = z.object({
  /** Port that the agent listens on. */
  agentPort: z.number().int(),
  /** Port of the application's container. */
  containerPort: z.number().int(),
  containerName: z.string(),
  protocol: z.enum(["tcp", "udp"]),
  /** `name`: the agent's container carries the port's name; `redirect`: nft in the pod sends new connections over. */
  takeover: z.enum(["name", "redirect"]),
  /** The port's name before the take-over. */
  portName: z.string().optional(),
  /** Its service says that it speaks HTTP, or that it does not; left out where only the first bytes can tell. */
  http: z.boolean().optional(),
  /** Its service says that callers speak TLS. */
  tls: z.boolean().optional(),
});
export type AgentPort = z.infer<typeof agentPortSchema>;
/** A port of the application. */
export type AppPort = Pick<AgentPort, "containerPort" | "protocol">;

export function isSamePort(one: AppPort, other: AppPort): boolean {
  return one.containerPort === other.containerPort && one.protocol === other.protocol;
}

/** A volume of the pod that may hold a certificate and its key, mounted in the agent's container as well. */
export const certificateVolumeSchema = z.object({
  name: z.string().max(253),
  /** The Secret that it shows. */
  secret: z.string().max(253).optional(),
  /** Where the agent has it. */
  path: z.string().max(4096),
});
export type CertificateVolume = z.infer<typeof certificateVolumeSchema>;

/** A probe of the kubelet's that the pod declares. Those that run a program are none of an agent's. */
export const podProbeSchema = z.object({
  containerPort: z.number().int(),
  by: z.enum(["http", "https", "grpc", "tcp"]),
  /** Of `http` and `https`. */
  path: z.string().max(4096).optional(),
});
export type PodProbe = z.infer<typeof podProbeSchema>;

export const agentConfigSchema = z.object({
  workload: workloadSchema,
  ports: z.array(agentPortSchema).max(maxAgentPorts),
  /** Container whose environment and volumes the laptop gets unless it asks for another. */
  containerName: z.string(),
  /** Left out by versions that cannot read TLS. */
  certificateVolumes: z.array(certificateVolumeSchema).max(256).optional(),
  /** Left out by versions that leave every probe to the application. */
  probes: z.array(podProbeSchema).max(256).optional(),
  /** A stand-in is in the container's place: the pod shall not be ready before a laptop has its traffic. */
  standIn: z.boolean().optional(),
  /** Only for an agent that was put into a running pod. */
  ephemeral: z
    .object({
      /** Unused for so long it ends by itself. */
      idleExitMs: z.number().int().positive(),
      /** The pod's memory limit, which it shares with the application. */
      memoryLimitBytes: z.number().int().positive().optional(),
    })
    .optional(),
});
export type AgentConfig = z.infer<typeof agentConfigSchema>;

const empty = z.object({});

export const maxSessionIdLength = 64;
const sessionIdSchema = z.string().min(1).max(maxSessionIdLength);

/** Methods that the agent calls on the manager. */
export const agentToManagerApi = {
  arrive: method(
    z.object({
      podName: z.string().max(253),
      podUid: z.string().max(64),
      podIps: z.array(z.string().max(64)).max(8),
      version: z.string().max(64),
      config: agentConfigSchema,
      /** Sessions whose laptops introduced this manager to the agent; those that ended meanwhile do no harm. */
      introducedBy: z.array(sessionIdSchema).min(1).max(64),
      /** It honours `filter` of what it serves; one that does not say so would take everything. */
      filters: z.boolean().optional(),
      /** It honours `tls` of what it serves. */
      tls: z.boolean().optional(),
      /** It honours `probes` of what it serves. */
      probes: z.boolean().optional(),
      /** It honours `suspended`, so that connections need not end with their laptop's link. */
      suspends: z.boolean().optional(),
    }),
    empty,
  ),
  /** One more laptop has introduced this manager to the agent. */
  introduced: method(z.object({ sessionId: sessionIdSchema }), empty),
  /**
   * Somebody who may run programs in this agent's container ends an intercept of its workload; answered when the agents
   * have confirmed. `by` is what that laptop calls itself.
   */
  "intercept.revoke": method(z.object({ id: z.string().max(400), by: z.string().max(300) }), empty),
} as const;

export const servedInterceptSchema = z.object({
  id: z.string(),
  client: z.string(),
  /** `intercept` when left out. */
  kind: interceptKindSchema.optional(),
  ports: z.array(interceptPortSchema),
  /** What becomes of connections older than the intercept; `keep` when left out. */
  existing: z.enum(existingModes).optional(),
  /** Who answers when the laptop's process does not take a connection; `app` when left out. */
  onRefused: onRefusedSchema.optional(),
  /** Who answers the kubelet's probes; `app` when left out. */
  probes: probeModeSchema.optional(),
  /** Which requests of HTTP it takes; everything when left out. */
  filter: filterTextSchema.optional(),
  /** How connections that speak TLS are read, for the filter. */
  tls: interceptTlsSchema.optional(),
});
export type ServedIntercept = z.infer<typeof servedInterceptSchema>;

/** Methods that the manager calls on the agent. */
export const managerToAgentApi = {
  /**
   * The whole set this agent serves for this manager, in the order in which they are asked; answered when in force. What it cannot serve it leaves out
   * and names in the error `not_interceptable`, field `refused`: [{id, message}]; the rest is in force then.
   */
  "intercepts.set": method(
    z.object({
      intercepts: z.array(servedInterceptSchema).max(1000),
      /** Ids of those that are not among them only because their laptops' links are lost. */
      suspended: z.array(z.string()).max(1000).optional(),
    }),
    empty,
  ),
} as const;

/** What the application sees of a port's callers while the agent passes their connections to it. */
export const callersOfPortSchema = z.object({
  containerPort: z.number().int(),
  protocol: z.enum(["tcp", "udp"]),
  /** The caller's address; else the pod's own. */
  kept: z.boolean(),
  /** Why it is not kept. */
  reason: z.string().max(500),
});
export type CallersOfPort = z.infer<typeof callersOfPortSchema>;

/** Connections that are older than the port's intercept and still go to the application. */
export const olderConnectionsOfPortSchema = z.object({
  containerPort: z.number().int(),
  protocol: z.enum(["tcp", "udp"]),
  connections: z.number().int().min(0).max(1_000_000),
  /** Addresses they come from. */
  callers: z.number().int().min(0).max(1_000_000),
  /** The first of these addresses, so that a caller of several pods counts once. */
  addresses: z.array(z.string().max(64)).max(64),
  /** Why they cannot be counted, or closed as was asked. */
  reason: z.string().max(1000).optional(),
});
export type OlderConnectionsOfPort = z.infer<typeof olderConnectionsOfPortSchema>;

/** Connections that went by a port's filters: nobody could read requests in them, or the laptop not take them in TLS. */
export const unreadConnectionsOfPortSchema = z.object({
  containerPort: z.number().int(),
  protocol: z.enum(["tcp", "udp"]),
  /** Those that spoke TLS … */
  tls: z.number().int().min(0).max(1_000_000_000),
  /** … and why the last of them was not read. */
  reason: z.string().max(1000).optional(),
  /** Those that spoke something other than HTTP. */
  other: z.number().int().min(0).max(1_000_000_000),
});
export type UnreadConnectionsOfPort = z.infer<typeof unreadConnectionsOfPortSchema>;

/** Notifications that the agent sends. */
export const agentNotifications = {
  /** All ports of which it is known; sent before each answer to `intercepts.set`. */
  "callers.kept": z.object({ ports: z.array(callersOfPortSchema).max(64) }),
  /** All ports that are intercepted; sent before each answer to `intercepts.set`, and on change. */
  "connections.older": z.object({ ports: z.array(olderConnectionsOfPortSchema).max(64) }),
  /** All ports with filters; on change, not too often. Counted while the port has filters. */
  "connections.unread": z.object({ ports: z.array(unreadConnectionsOfPortSchema).max(64) }),
  /** Copies that a wiretap's process has taken since the last time; those cut short or left out, and why the last was. */
  "copies.counted": z.object({
    interceptId: z.string(),
    copied: z.number().int().min(0),
    cut: z.number().int().min(0),
    reason: z.string().max(1000).optional(),
  }),
  /** The laptop's process refused connections, which then went to the application. */
  "laptop.refused": z.object({ interceptId: z.string(), count: z.number().int() }),
} as const;
