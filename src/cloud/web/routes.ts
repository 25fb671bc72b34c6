// Every route of our own host, in one list.
import { clusterRoutes } from "#cloud/clusters/cluster-routes.ts";
import { dashboardRoutes } from "#cloud/dashboard/dashboard-routes.ts";
import { inspectRoutes } from "#cloud/dashboard/inspect-relay.ts";
import type { PageFiles } from "#cloud/dashboard/page-files.ts";
import type { DashboardSources } from "#cloud/dashboard/snapshot.ts";
import { accountRoutes } from "#cloud/identity/account-pages.ts";
import { logInRoutes } from "#cloud/identity/log-in.ts";
import { passwordRoutes } from "#cloud/identity/password-pages.ts";
import { peopleRoutes } from "#cloud/identity/people-pages.ts";
import { oidcRoutes } from "#cloud/identity/oidc.ts";
import { oauthRoutes } from "#cloud/oauth/oauth-routes.ts";
import { enterRoute } from "#cloud/previews/enter-page.ts";
import { previewRoutes } from "#cloud/previews/preview-routes.ts";
import { auditRoutes } from "./audit-page.ts";
import { healthRoutes } from "./health.ts";
import { metricsRoute } from "./metrics-route.ts";
import type { Parts, Route } from "./route.ts";
import { styleRoute } from "./style.ts";

export interface Serving {
  /** False from the moment the server is told to end. */
  readonly isServing: () => boolean;
  /** Aborted then. */
  readonly ending: AbortSignal;
  readonly sources: DashboardSources;
  readonly files: PageFiles;
}

export function allRoutes(parts: Parts, serving: Serving): readonly Route[] {
  return [
    ...healthRoutes(parts, serving.isServing),
    styleRoute,
    ...logInRoutes(parts),
    ...oidcRoutes(parts),
    ...accountRoutes(parts),
    ...oauthRoutes(parts),
    ...passwordRoutes(parts),
    ...peopleRoutes(parts),
    ...auditRoutes(parts),
    ...clusterRoutes(parts),
    ...dashboardRoutes(parts, serving),
    ...inspectRoutes(parts, serving.ending),
    ...previewRoutes(parts),
    enterRoute(parts),
    metricsRoute(parts),
  ];
}
