// Shows openapi.json. All addresses are relative, so that the page works behind a path prefix too.
"use strict";

async function start() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  const spec = await answer.json();
  // Without this, "Try it out" would ask the root of the host.
  spec.servers = [{ url: new URL(".", document.baseURI).href.replace(/\/$/, "") }];
  sendOnce(spec);
  window.SwaggerUIBundle({
    spec,
    dom_id: "#swagger",
    deepLinking: true,
    displayRequestDuration: true,
    // Else a badge asks a validator on another host.
    validatorUrl: null,
    // Swagger UI would take these from the address, and show the page of another host.
    queryConfigEnabled: false,
  });
}

// Swagger UI fills in what a form may have, and a parameter in both the query and the form is refused. The page shows
// those that the query takes there alone.
function sendOnce(spec) {
  for (const operations of Object.values(spec.paths)) {
    for (const operation of Object.values(operations)) {
      const form = operation.requestBody?.content["multipart/form-data"]?.schema.properties ?? {};
      for (const parameter of operation.parameters ?? []) delete form[parameter.name];
    }
  }
}

start().catch((error) => {
  document.getElementById("swagger").textContent = `The page cannot be shown: ${error.message}`;
});
