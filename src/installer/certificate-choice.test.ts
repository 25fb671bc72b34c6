import { describe, expect, test } from "vitest";
import type { PodTemplate, Service } from "#kube/objects.ts";
import type { InterceptTls } from "#wire/intercept-tls.ts";
import { chooseTls } from "./certificate-choice.ts";

interface Setup {
  readonly secrets?: readonly string[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly portName?: string;
  readonly wish?: InterceptTls;
}
function choose({ secrets = [], annotations = {}, portName = "https", wish }: Setup): InterceptTls | undefined {
  const volumeMounts = secrets.map((name) => ({ name, mountPath: `/${name}` }));
  const template = {
    metadata: { annotations },
    spec: {
      containers: [{ name: "web", ports: [{ name: "main", containerPort: 8443 }], volumeMounts }],
      volumes: secrets.map((name) => ({ name, secret: { secretName: `${name}-secret` } })),
    },
  } as unknown as PodTemplate;
  const ports = [{ name: portName, port: 8443, targetPort: "main" }];
  const services: Service[] = [{ metadata: { name: "web" }, spec: { selector: {}, ports } }];
  return chooseTls({ what: "Deployment web", template, services, containerPorts: [8443], wish });
}

describe("how TLS is read", () => {
  test("is nobody's concern where nothing says that the port speaks it", () => {
    expect(choose({ portName: "web" })).toBeUndefined();
    expect(choose({ portName: "web", wish: { plaintext: true } })).toEqual({ plaintext: true });
  });

  test("is the agent's to find out where the port speaks it and the pod has something", () => {
    expect(choose({ secrets: ["a", "b"] })).toEqual({});
  });

  test("is refused before anything is touched where the pod has nothing", () => {
    expect(() => choose({})).toThrow(
      /^port 8443 of Deployment web speaks TLS .* its pods mount no Secret that could hold the certificate$/,
    );
  });

  test("is what the user says, else the workload's owner, by volume or Secret", () => {
    const annotations = { "telepresence.io/tls-certificate": "b-secret" };
    const wish = { certificate: { volume: "a" }, plaintext: true };
    expect(choose({ secrets: ["a", "b"], annotations, wish })).toEqual(wish);
    expect(choose({ secrets: ["a", "b"], annotations, portName: "web" })).toEqual({
      certificate: { volume: "b-secret" },
    });
    expect(() => choose({ secrets: ["a"], annotations })).toThrow(
      expect.objectContaining({ hint: "they mount a (Secret a-secret)" }) as Error,
    );
    expect(() => choose({ annotations: { "telepresence.io/tls-certificate": "a b" } })).toThrow(/expected VOLUME/);
  });
});
