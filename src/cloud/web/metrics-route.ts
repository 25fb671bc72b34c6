// What Prometheus reads: with the token that `--metrics-token-file` names, or as an administrator.
import { AppError } from "#base/error.ts";
import { hashToken, sameText } from "#cloud/identity/tokens.ts";
import type { Parts, RequestContext, Route } from "./route.ts";

export function metricsRoute({ config, metrics }: Parts): Route {
  const mayRead = (context: RequestContext): boolean => {
    if (context.get("caller")?.person.admin === true) return true;
    const given = /^Bearer (.+)$/.exec(context.req.header("authorization") ?? "")?.[1];
    if (given === undefined || config.metricsToken === undefined) return false;
    return sameText(hashToken(given), hashToken(config.metricsToken));
  };
  return {
    method: "GET",
    path: "/metrics",
    access: "client",
    handle: (context) => {
      if (mayRead(context)) return context.text(metrics.format());
      throw new AppError("unauthorized", "metrics are for administrators, and for whoever has the metrics token");
    },
  };
}
