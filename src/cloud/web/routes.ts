// Every route of our own host, in one list.
import { healthRoutes } from "./health.ts";
import { page } from "./page.ts";
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
    {
      method: "GET",
      path: "/",
      access: "public",
      handle: (context) => page(context, { title: "Telepresence", body: "The server runs." }),
    },
    {
      method: "GET",
      path: "/metrics",
      access: "admin",
      handle: (context) => context.text(parts.metrics.format()),
    },
  ];
}
