// The similarity of two face crops, with Node 20 or newer and no package: node similarity.mjs a.jpg b.jpg
import { readFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";

const URL = "http://localhost:5555/embed?normalize=true";

// The embedding of a picture, of length 1, and how it was made.
async function embed(path) {
  const content = new Blob([await readFile(path)]);
  let answer, body;
  for (let attempt = 0; attempt < 10; attempt++) {
    const form = new FormData();
    form.append("file", content);
    answer = await fetch(URL, { method: "POST", body: form });
    body = await answer.json();
    if (answer.status !== 429 && answer.status !== 503) break; // full, or restarting
    await setTimeout(1000 * Number(answer.headers.get("Retry-After") ?? 1));
  }
  if (!answer.ok) throw new Error(`${path}: ${body.code}: ${body.detail}`);
  return { embedding: body.embedding, recipe: answer.headers.get("X-Embedding-Recipe") };
}

try {
  const [one, other] = await Promise.all(process.argv.slice(2, 4).map(embed));
  if (one.recipe !== other.recipe) throw new Error("Made in different ways: do not compare.");
  const similarity = one.embedding.reduce((sum, number, i) => sum + number * other.embedding[i], 0);
  console.log(`similarity ${similarity.toFixed(3)}`);
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
