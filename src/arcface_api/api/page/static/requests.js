// The request that the page has sent, for other programs.

const shellWord = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
// In curl's forms a file name with commas or semicolons must be in double quotes.
const curlFile = (name) => shellWord(`file=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`);
const python = (value) => (value === "true" ? "True" : JSON.stringify(value));

/** name → the request as text, for the address of the service, its query, the names of one or two pictures, and whether
 * there is an API key, which the text takes from the environment. */
export const LANGUAGES = {
  curl: (url, query, names, hasKey) =>
    names.map((name) => `curl ${hasKey ? '-H "X-API-Key: $API_KEY" ' : ""}-F ${curlFile(name)} \\\n  ${shellWord(`${url}?${new URLSearchParams(query)}`)}`).join("\n\n"),
  Python: (url, query, names, hasKey) => `${hasKey ? "import os\n\n" : ""}from arcface_api.client import Client

options = {
${Object.entries(query).map(([name, value]) => `    ${JSON.stringify(name)}: ${python(value)},`).join("\n")}
}
with Client(${JSON.stringify(url.replace(/\/embed$/, ""))}${hasKey ? ', api_key=os.environ["API_KEY"]' : ""}) as client:
${
    names.length > 1
      ? `    one, other = (client.embed(path, **options) for path in (${names.map((name) => JSON.stringify(name)).join(", ")}))
    print("similarity", client.similarity(one, other))`
      : `    face = client.embed(${JSON.stringify(names[0])}, **options)
    print(face.model, len(face.vector), "numbers")`
  }`,
  "Node.js": (url, query, names, hasKey) => `import { readFile } from "node:fs/promises";

async function embed(path) {
  const query = new URLSearchParams({
${Object.entries(query).map(([name, value]) => `    ${name}: ${JSON.stringify(value)},`).join("\n")}
  });
  const form = new FormData();
  form.append("file", new Blob([await readFile(path)]), "face");
  const answer = await fetch(\`${url.replaceAll("`", "")}?\${query}\`, { method: "POST", body: form${hasKey ? ', headers: { "X-API-Key": process.env.API_KEY }' : ""} });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer.json();
}

${
    names.length > 1
      ? `const [one, other] = await Promise.all([${names.map((name) => JSON.stringify(name)).join(", ")}].map(embed));
console.log("similarity", one.embedding.reduce((sum, value, place) => sum + value * other.embedding[place], 0));`
      : `const face = await embed(${JSON.stringify(names[0])});
console.log(face.model, face.embedding.length, "numbers");`
  }`,
};
