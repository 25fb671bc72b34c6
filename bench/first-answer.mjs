// Runs in the cluster's network: `first-answer.mjs URL WORD` calls the URL again and again, each time on a connection
// of its own, one after the other, and prints when (wall clock, ms) the first answer with that word in it had come.
// Prints `ready` first.
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const [, , url, word] = process.argv;
const answer = () =>
  new Promise((resolve) => {
    const request = http.get(url, { agent: false, timeout: 1000 }, (response) => {
      let text = "";
      response.on("data", (chunk) => (text += chunk));
      response.on("end", () => resolve(text));
    });
    request.on("timeout", () => request.destroy(new Error("silent")));
    request.on("error", () => resolve(""));
  });

process.stdout.write("ready\n");
while (!(await answer()).includes(word)) await sleep(2);
process.stdout.write(`${Date.now()}\n`);
