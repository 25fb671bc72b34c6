// Every route of our own host, in one list.
import { accountRoutes } from "#cloud/identity/account-pages.ts";
import { logInRoutes } from "#cloud/identity/log-in.ts";
import { oidcRoutes } from "#cloud/identity/oidc.ts";
import { oauthRoutes } from "#cloud/oauth/oauth-routes.ts";
import { healthRoutes } from "./health.ts";
import type { Parts, Route } from "./route.ts";
import { styleRoute } from "./style.ts";

export interface Serving {
  /** False from the moment the server is told to end. */
  readonly isServing: () => boolean;
}

export function allRoutes(parts: Parts, { isServing }: Serving): readonly Route[] {
  return [
    ...healthRoutes(parts, isServing),
    styleRoute,
    ...logInRoutes(parts),
    ...oidcRoutes(parts),
    ...accountRoutes(parts),
    ...oauthRoutes(parts),
    { method: "GET", path: "/metrics", access: "admin", handle: (context) => context.text(parts.metrics.format()) },
  ];
}
