import { expect, test } from "vitest";
import type { InterceptInfo } from "#wire/manager-api.ts";
import { formatIntercept } from "./intercept.ts";
import { formatCopies } from "./wiretap.ts";

const info: InterceptInfo = {
  id: "s:copies",
  spec: {
    name: "copies",
    kind: "wiretap",
    workload: { kind: "Deployment", name: "hello", namespace: "shop" },
    containerName: "app",
    ports: [{ containerPort: 8080, protocol: "tcp", targetHost: "127.0.0.1", targetPort: 9000 }],
    filter: 'request.method == "GET"',
  },
  client: "ann@laptop",
  sessionId: "s",
  state: "active",
  message: "",
  pods: [{ name: "hello-1", uid: "1", ip: "10.1.2.3" }],
  refusedByLaptop: 2,
  copies: { copied: 12, cut: 3, reason: "the laptop did not keep up" },
  createdAtMs: 0,
};

test("a wiretap is shown as what it is, with its copies", () => {
  expect(formatIntercept(info, { debug: false, foreign: false }).join("\n")).toMatchInlineSnapshot(`
    "   Wiretap name  : copies
       State         : ACTIVE
       Workload kind : Deployment
       Copying       : 10.1.2.3 -> 127.0.0.1
           8080 -> 9000 TCP
       Copying       : HTTP requests that match
           request.method == "GET"
       Copies        : 12 copied, 3 cut short or left out (the laptop did not keep up)
       Copies refused: 2 not made because nothing accepted them on the laptop"
  `);
});

test("copies that all came whole need no more words", () => {
  expect(formatCopies({ copied: 12, cut: 0 })).toBe("12 copied");
});
