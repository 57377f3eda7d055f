// Node's fetch, as __init__.py describes: one agent with one connection for each line.
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";

const [url, file] = process.argv.slice(2);
const picture = readFileSync(file);
await fetch("data:,"); // loads what the next line finds
const { constructor: Agent } = globalThis[Symbol.for("undici.globalDispatcher.1")];

async function follow(line) {
    const dispatcher = new Agent({ connections: 1 });
    const headers = { "Content-Type": "image/jpeg" };
    for (const step of line.split(" ")) {
        const [seconds, query] = step.split(":");
        await setTimeout(seconds * 1000);
        let outcome;
        try {
            const answer = await fetch(`${url}?${query}`, { method: "POST", body: picture, headers, dispatcher });
            await answer.arrayBuffer();
            outcome = answer.status;
        } catch (error) {
            outcome = `${error}: ${error.cause}`;
        }
        console.log(`${query}\t${outcome}`);
    }
}

await Promise.all(readFileSync(0, "utf8").trim().split("\n").map(follow));
process.exit();
