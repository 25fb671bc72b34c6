// Tables of nftables that the kernel removes when this process ends (`flags owner`): the netlink socket that made a
// table owns it, nobody else may change it, and closing the socket by whatever means, SIGKILL too, takes it away.
// Needs NET_ADMIN; Linux 5.12 or later.
import { AppError, isAppError } from "#base/error.ts";
import { NetlinkWriter, nlm } from "./netlink.ts";
import { NetlinkSocket } from "./netlink-socket.ts";
import { writeExpressions } from "./nft-rules.ts";
import type { Rule } from "./nft-rules.ts";

const netlinkNetfilter = 12;
const subsystemNftables = 10;
const batchBegin = 0x10;
const batchEnd = 0x11;
const message = { newTable: 0, newChain: 3, newRule: 6, deleteRule: 8 } as const;
const familyInet = 1;
const tableFlagOwner = 2;

/** Where a NAT chain sits: what this namespace's programs send, or what arrives. */
export const natHook = { prerouting: 0, output: 3 } as const;
export type NatHook = keyof typeof natHook;

/** chosen: just behind the usual destination NAT (-100), so that rules of the host's own come first. */
export const natPriority = -99;

export interface Chain {
  readonly name: string;
  /** `route` looks the packet's way up again when a rule has changed its mark. */
  readonly type: "nat" | "filter" | "route";
  readonly hook: NatHook;
  /** The kernel's own: raw -300 is before conntrack, mangle -150 behind it. */
  readonly priority: number;
}

export class OwnedTable implements Disposable {
  readonly name: string;
  readonly #socket: NetlinkSocket;

  private constructor(name: string, socket: NetlinkSocket) {
    this.name = name;
    this.#socket = socket;
  }

  /** An empty table of both families with one NAT chain for each of `hooks`, named for its hook. */
  static open(name: string, hooks: readonly NatHook[], priority = natPriority): OwnedTable {
    const socket = new NetlinkSocket(netlinkNetfilter, "unsupported");
    const table = new OwnedTable(name, socket);
    try {
      table.#transact(`making the nftables table ${name}`, (batch) => {
        batch.add(message.newTable, nlm.create | nlm.exclusive, (writer) =>
          writer.text(1, name).be32(2, tableFlagOwner),
        );
        for (const hook of hooks) {
          const chain: Chain = { name: hook, type: "nat", hook, priority };
          batch.add(message.newChain, nlm.create, (writer) => fillChain(writer, name, chain));
        }
      });
      return table;
    } catch (error) {
      socket[Symbol.dispose]();
      throw explain(error);
    }
  }

  /** Another chain with its rules; all of it or, when this throws, nothing. */
  addChain(chain: Chain, rules: readonly Rule[]): void {
    this.#transact(`adding the chain ${chain.name} to the nftables table ${this.name}`, (batch) => {
      batch.add(message.newChain, nlm.create | nlm.exclusive, (writer) => fillChain(writer, this.name, chain));
      this.#addRules(batch, chain.name, rules);
    });
  }

  /** In one transaction: no packet meets the chain without either the old rules or the new. */
  replaceRules(chain: string, rules: readonly Rule[]): void {
    this.#transact(`changing the nftables table ${this.name}`, (batch) => {
      // Without a handle this deletes all rules of the chain.
      batch.add(message.deleteRule, 0, (writer) => writer.text(1, this.name).text(2, chain));
      this.#addRules(batch, chain, rules);
    });
  }

  /** The table is gone when this returns. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #addRules(batch: Batch, chain: string, rules: readonly Rule[]): void {
    for (const rule of rules) {
      batch.add(message.newRule, nlm.create | nlm.append, (writer) =>
        writer
          .text(1, this.name)
          .text(2, chain)
          .nested(4, (nested) => writeExpressions(nested, rule)),
      );
    }
  }

  #transact(what: string, fill: (batch: Batch) => void): void {
    const batch = new Batch(this.#socket);
    fill(batch);
    this.#socket.exchange(batch.bytes(), batch.awaited, what);
  }
}

/** Messages that take effect together or not at all, each acknowledged. */
class Batch {
  readonly awaited = new Set<number>();
  readonly #socket: NetlinkSocket;
  readonly #writer = new NetlinkWriter();

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
    this.#mark(batchBegin);
  }

  add(type: number, flags: number, fill: (writer: NetlinkWriter) => void): void {
    const sequence = this.#socket.nextSequence();
    this.awaited.add(sequence);
    const head = { type: (subsystemNftables << 8) | type, flags: nlm.request | nlm.ack | flags, sequence };
    this.#writer.message(head, Uint8Array.of(familyInet, 0, 0, 0), fill);
  }

  bytes(): Uint8Array {
    this.#mark(batchEnd);
    return this.#writer.bytes();
  }

  #mark(type: number): void {
    const head = { type, flags: nlm.request, sequence: this.#socket.nextSequence() };
    this.#writer.message(head, Uint8Array.of(0, 0, 0, subsystemNftables));
  }
}

function fillChain(writer: NetlinkWriter, table: string, chain: Chain): void {
  writer
    .text(1, table)
    .text(3, chain.name)
    .nested(4, (nested) => nested.be32(1, natHook[chain.hook]).be32(2, chain.priority))
    .text(7, chain.type);
}

function explain(error: unknown): unknown {
  if (!isAppError(error)) return error;
  const hints: Readonly<Record<string, string>> = {
    EPERM: "it needs the capability NET_ADMIN, and that no other process holds a table of this name",
    EPROTONOSUPPORT: "this kernel has no nftables",
    EOPNOTSUPP: "owned tables and NAT need Linux 5.12 or later with nft_nat",
    ENOENT: "the kernel lacks a module: nft_chain_nat, nft_redir or nft_ct",
    EINVAL: "owned tables need Linux 5.12 or later",
    EEXIST: "another session holds the table",
  };
  const hint = hints[String(error.fields["errno"])];
  return hint === undefined ? error : new AppError(error.code, error.message, { fields: error.fields, hint });
}
