// Runs a handler as Lambda's Node runtime does: bootstrap.mjs FILE FUNCTION

import { pathToFileURL } from "node:url";

const invocations = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;
const [file, name] = process.argv.slice(2);
const { [name]: handler } = await import(pathToFileURL(file));

for (;;) {
  const next = await fetch(`${invocations}/next`);
  const id = next.headers.get("lambda-runtime-aws-request-id");
  const event = await next.json();
  let kind, result;
  try {
    [kind, result] = ["response", await handler(event)];
  } catch (error) {
    [kind, result] = ["error", { errorType: error.name, errorMessage: error.message }];
  }
  await fetch(`${invocations}/${id}/${kind}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(result),
  });
}
