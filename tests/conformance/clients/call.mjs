// A client of both envelopes in Node, without packages. Shares nothing with the agent.
//   node call.mjs sealed|founding http://HOST:8010/NAMESPACE KEYFILE REQUEST_JSON
//   node call.mjs vector                    reads a golden message from stdin, writes what it makes of it
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:http";

const b64u = (data) => Buffer.from(data).toString("base64url");

function founding(raw) {
  const parts = ["des-ede3-cbc", raw.subarray(0, 24), raw.subarray(-8)];
  const sign = (body, date) => createHmac("sha1", raw).update(body).update(date).digest();
  return {
    encrypt(text) { const c = createCipheriv(...parts); return Buffer.concat([c.update(text, "utf8"), c.final()]).toString("base64"); },
    decrypt(body) { const d = createDecipheriv(...parts); return Buffer.concat([d.update(Buffer.from(body.replace(/\s/g, ""), "base64")), d.final()]).toString("utf8"); },
    sign: (body, date) => sign(body, date).toString("base64"),
    verify: (body, date, signature) => timingSafeEqual(sign(body, date), Buffer.from(signature, "base64")),
  };
}

function sealed(raw) {
  const key = Buffer.from(hkdfSync("sha256", raw, Buffer.alloc(0), "scalarizr jwe A256GCM", 32));
  return {
    key,
    encrypt(text, header, iv = randomBytes(12)) {
      const first = b64u(JSON.stringify(header));
      const cipher = createCipheriv("aes-256-gcm", key, iv).setAAD(Buffer.from(first));
      const data = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
      return [first, "", b64u(iv), b64u(data), b64u(cipher.getAuthTag())].join(".");
    },
    decrypt(token) {
      const [first, , iv, data, tag] = token.split(".");
      const cipher = createDecipheriv("aes-256-gcm", key, Buffer.from(iv, "base64url"));
      cipher.setAAD(Buffer.from(first)).setAuthTag(Buffer.from(tag, "base64url"));
      const text = Buffer.concat([cipher.update(Buffer.from(data, "base64url")), cipher.final()]).toString("utf8");
      return { header: JSON.parse(Buffer.from(first, "base64url")), text };
    },
  };
}

function post(url, headers, body) {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method: "POST", headers: { ...headers, "Content-Length": Buffer.byteLength(body) } }, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => resolve({ status: answer.statusCode, headers: answer.headers, body: Buffer.concat(chunks).toString("latin1") }));
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

function utcDate() {
  const [day, rest] = new Date().toUTCString().split(", ");
  return `${day} ${rest.replace("GMT", "UTC")}`;
}

async function call(envelope, url, keyFile, text) {
  const raw = Buffer.from(readFileSync(keyFile, "latin1").replace(/\s/g, ""), "base64");
  if (envelope === "founding") {
    const wire = founding(raw);
    const body = wire.encrypt(text);
    const date = utcDate();
    const answer = await post(url, { Date: date, "X-Signature": wire.sign(body, date) }, body);
    if (answer.status !== 200) throw new Error(`HTTP ${answer.status}: ${answer.body}`);
    if (!wire.verify(answer.body, answer.headers.date, answer.headers["x-signature"])) throw new Error("signature");
    return wire.decrypt(answer.body);
  }
  const wire = sealed(raw);
  const jti = b64u(randomBytes(16));
  const header = { alg: "dir", enc: "A256GCM", typ: "scalarizr", aud: new URL(url).pathname, iat: Math.floor(Date.now() / 1000), jti };
  const answer = await post(url, { "Content-Type": "application/jose" }, wire.encrypt(text, header));
  if (answer.status === 204) return "";
  if (answer.status !== 200) throw new Error(`HTTP ${answer.status}: ${answer.body}`);
  const opened = wire.decrypt(answer.body);
  if (opened.header.irt !== jti) throw new Error("the answer belongs to another question");
  return opened.text;
}

function vector() {
  const golden = JSON.parse(readFileSync(0, "utf8"));
  const raw = Buffer.from(golden.key, "base64");
  if (golden.envelope === "founding") {
    const wire = founding(raw);
    return { text: wire.decrypt(golden.body), body: wire.encrypt(golden.json), x_signature: wire.sign(golden.body, golden.date) };
  }
  const wire = sealed(raw);
  const iv = Buffer.from(golden.body.split(".")[2], "base64url");
  return { ...wire.decrypt(golden.body), body: wire.encrypt(golden.json, golden.protected, iv), derived_key: wire.key.toString("base64") };
}

const [task, ...rest] = process.argv.slice(2);
try {
  console.log(task === "vector" ? JSON.stringify(vector()) : await call(task, ...rest));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
