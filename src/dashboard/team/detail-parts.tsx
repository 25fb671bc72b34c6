// What the details of all kinds are made of.
import { useState } from "preact/hooks";
import type { ComponentChildren, JSX } from "preact";
import type { DashboardSnapshot } from "#wire/dashboard-api.ts";
import type { Board } from "./board.ts";
import type { Row } from "./views.ts";

export interface DetailProps<Kind extends Row["kind"] = Row["kind"]> {
  readonly row: Extract<Row, { kind: Kind }>;
  readonly board: Board;
  readonly snapshot: DashboardSnapshot;
}

export function Facts({ facts }: { readonly facts: readonly (readonly [string, ComponentChildren])[] }): JSX.Element {
  return (
    <table class="facts">
      <tbody>
        {facts.map(([name, value]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function Notice({ text }: { readonly text: string }): JSX.Element {
  return (
    <p class="notice" role="status">
      {text}
    </p>
  );
}

export interface Action {
  readonly busy: boolean;
  readonly notice: string;
  /** `done` is said afterwards, or what went wrong. */
  readonly run: (work: () => Promise<unknown>, done?: string) => void;
}

export function useAction(): Action {
  const [busy, setBusy] = useState(false);
  const [notice, setNotice] = useState("");
  const run = (work: () => Promise<unknown>, done = ""): void => {
    setBusy(true);
    setNotice("");
    void attempt(work, done).then((said) => {
      setNotice(said);
      setBusy(false);
    });
  };
  return { busy, notice, run };
}

async function attempt(work: () => Promise<unknown>, done: string): Promise<string> {
  try {
    await work();
    return done;
  } catch (error) {
    return (error as Error).message;
  }
}
