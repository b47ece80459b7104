// Builds, tests and serves the console. One file, because esbuild needs no more.
//
//   node build.mjs build   app/ → dist/ (the same bytes from the same sources)
//   node build.mjs test    runs app/test/*.test.ts in Node's own test runner
//   node build.mjs dev [ROBOTS [PORT]]   serves the page with a fake fleet behind it

import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import * as esbuild from "esbuild";

const root = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(root, "dist");
const scratch = path.join(root, "node_modules", ".cache");
/** Packages whose code is in the bundle; their licences go with it. */
const shipped = ["preact", "@preact/signals", "@preact/signals-core", "uplot"];
/** The page is read over robots' Wi-Fi: kibibytes of JavaScript and CSS, compressed. */
const budgetKiB = 120;

const page = {
  absWorkingDir: root,
  entryPoints: { app: "app/main.tsx", icon: "app/icon.svg" },
  entryNames: "assets/[name]-[hash]",
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  loader: { ".svg": "copy" },
  legalComments: "none",
  metafile: true,
  write: false,
  logLevel: "warning",
};

/** The files of the page, by path under dist/. */
async function files() {
  const result = await esbuild.build(page);
  const out = new Map(result.outputFiles.map((f) => [path.relative(dist, f.path).split(path.sep).join("/"), Buffer.from(f.contents)]));
  const named = (suffix) => "/" + [...out.keys()].find((name) => name.endsWith(suffix));
  const html = await readFile(path.join(root, "app/index.html"), "utf8");
  out.set("index.html", Buffer.from(html.replace("ICON", named(".svg")).replace("STYLE", named(".css")).replace("SCRIPT", named(".js"))));
  out.set("licenses.txt", Buffer.from(await licences()));
  return out;
}

async function licences() {
  const texts = await Promise.all(
    shipped.map(async (name) => `${name}\n\n${(await readFile(path.join(root, "node_modules", name, "LICENSE"), "utf8")).trim()}\n`),
  );
  return texts.join("\n----\n\n");
}

async function build() {
  const out = await files();
  await mkdir(dist, { recursive: true });
  for (const name of await readdir(dist)) {
    if (name !== ".keep") await rm(path.join(dist, name), { recursive: true });
  }
  let compressed = 0;
  for (const [name, body] of [...out].sort()) {
    const file = path.join(dist, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, body);
    if (/\.(js|css)$/.test(name)) compressed += gzipSync(body, { level: 9 }).length;
    console.log(`dist/${name}  ${body.length} B`);
  }
  console.log(`JavaScript and CSS, compressed: ${(compressed / 1024).toFixed(1)} KiB of ${budgetKiB}`);
  if (compressed > budgetKiB * 1024) throw new Error(`the page is over its budget of ${budgetKiB} KiB: see what grew with esbuild's metafile`);
}

/** Bundles TypeScript for Node into a fresh directory. */
async function forNode(entryPoints) {
  await mkdir(scratch, { recursive: true });
  const outdir = await mkdtemp(path.join(scratch, "run-"));
  await esbuild.build({
    absWorkingDir: root, entryPoints, outdir, bundle: true, platform: "node", format: "esm", target: "node20", packages: "external",
    outExtension: { ".js": ".mjs" }, jsx: "automatic", jsxImportSource: "preact", sourcemap: "inline", logLevel: "warning",
  });
  return outdir;
}

function run(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--enable-source-maps", ...args], { stdio: "inherit" });
    for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal));
    child.on("error", reject);
    child.on("exit", (code) => resolve(code ?? 1));
  });
}

async function test() {
  const tests = (await readdir(path.join(root, "app/test"))).filter((f) => f.endsWith(".test.ts")).map((f) => `app/test/${f}`);
  const outdir = await forNode(tests);
  try {
    const built = (await readdir(outdir)).filter((f) => f.endsWith(".mjs")).map((f) => path.join(outdir, f));
    process.exitCode = await run(["--test", ...built]);
  } finally {
    await rm(outdir, { recursive: true });
  }
}

async function dev() {
  const [robots = "5", firstPort = "7880"] = process.argv.slice(3);
  const outdir = await forNode(["app/dev/main.ts"]);
  const { serve } = await import(pathToFileURL(path.join(outdir, "main.mjs")).href);
  await rm(outdir, { recursive: true });
  const fleet = await serve({ files, firstPort: Number(firstPort), robots: Number(robots) });
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => fleet.stop());
}

const commands = { build, test, dev };
const command = commands[process.argv[2] ?? ""];
if (command === undefined) {
  console.error("usage: node build.mjs build|test|dev");
  process.exitCode = 2;
} else {
  await command();
}
