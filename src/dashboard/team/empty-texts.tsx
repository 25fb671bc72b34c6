// What stands where there is nothing: what to type, for somebody who has never seen this.
import type { JSX } from "preact";
import type { ViewName } from "./views.ts";

export function EmptyText({
  view,
  isSearched,
}: {
  readonly view: ViewName;
  readonly isSearched: boolean;
}): JSX.Element {
  if (isSearched) return <>Nothing here matches the search.</>;
  switch (view) {
    case "clusters":
      return (
        <>
          <p>No cluster is known here yet. A laptop brings it:</p>
          <Commands lines={[`telepresence login --cloud-url ${location.origin}`, "telepresence connect"]} />
        </>
      );
    case "intercepts":
      return (
        <>
          <p>Nobody intercepts anything just now. On a laptop that is logged in here:</p>
          <Commands lines={["telepresence connect", "telepresence intercept WORKLOAD --port 8080"]} />
        </>
      );
    case "previews":
      return (
        <>
          <p>There is no preview. One is made with an intercept, by a laptop that is logged in here:</p>
          <Commands lines={["telepresence intercept WORKLOAD --port 8080 --preview-url=true"]} />
        </>
      );
    case "people":
      return (
        <p>
          There is nobody yet. An administrator invites people on <a href="/">the account's page</a>.
        </p>
      );
    case "audit":
      return <p>Nothing has happened yet.</p>;
  }
}

function Commands({ lines }: { readonly lines: readonly string[] }): JSX.Element {
  return (
    <>
      {lines.map((line) => (
        <div key={line}>
          <code>{line}</code>
        </div>
      ))}
    </>
  );
}
