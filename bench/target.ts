// What the benchmarks of the product call in the cluster.
import { images } from "#testbed/layout.ts";

/** Services whose names are looked up, and one more to begin with. */
export const nameCount = 100;

/** A web server with an echo for datagrams, a pod to call it from, and names to look up. */
export const manifest = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: target, labels: { app: target } }
spec:
  selector: { matchLabels: { app: target } }
  template:
    metadata: { labels: { app: target } }
    spec:
      containers:
        - name: web
          image: ${images.tools}
          command:
            - node
            - -e
            - |
              const block = Buffer.alloc(65536);
              require("http").createServer({ keepAliveTimeout: 600000 }, (request, response) => {
                if (request.method === "POST") {
                  request.resume();
                  request.on("end", () => response.end("ok"));
                } else if (request.url === "/down") {
                  const send = () => { while (response.write(block)); };
                  response.on("drain", send);
                  send();
                } else response.end("ok");
              }).listen({ port: 8080, backlog: 4096 });
              const echo = require("dgram").createSocket({ type: "udp4", recvBufferSize: 4194304 });
              echo.on("message", (datagram, { port, address }) => echo.send(datagram, port, address)).bind(9000)
          ports: [{ name: http, containerPort: 8080 }]
          readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: target }
spec:
  selector: { app: target }
  ports:
    - { name: http, port: 80, targetPort: http }
    - { name: echo, port: 9000, protocol: UDP }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: caller }
spec:
  selector: { matchLabels: { app: caller } }
  template:
    metadata: { labels: { app: caller } }
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{ name: caller, image: ${images.tools}, command: [sleep, infinity] }]
${Array.from({ length: nameCount + 1 }, (_, index) => nameOf(index)).join("")}`;

function nameOf(index: number): string {
  return `---
apiVersion: v1
kind: Service
metadata: { name: n${index} }
spec: { selector: { app: target }, ports: [{ port: 80 }] }
`;
}
