// The tables, as steps that only go forward. A step that was released is never edited: what changes is a new step.
// Statements are those that SQLite and PostgreSQL share; whoever adds a table adds it with its first use.

/** Each is one step; its number is its place, from 1. */
export const migrations: readonly (readonly string[])[] = [
  [
    `CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)`,
    // issuer: '' for people of the built-in identity provider, whose subject is the name they log in with
    `CREATE TABLE people (
      id TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL, name TEXT NOT NULL, email TEXT,
      password TEXT, admin INTEGER NOT NULL, created_ms BIGINT NOT NULL, UNIQUE (issuer, subject))`,
    `CREATE TABLE teams (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_ms BIGINT NOT NULL)`,
    `CREATE TABLE members (
      team_id TEXT NOT NULL REFERENCES teams ON DELETE CASCADE,
      person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE, PRIMARY KEY (team_id, person_id))`,
    `CREATE INDEX members_of_person ON members (person_id)`,
    `CREATE TABLE browser_sessions (
      hash TEXT PRIMARY KEY, person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
      created_ms BIGINT NOT NULL, seen_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL)`,
    `CREATE INDEX browser_sessions_end ON browser_sessions (expires_ms)`,
    // What somebody is invited to is used once; without an inviter it is the first administrator's link.
    `CREATE TABLE invites (
      hash TEXT PRIMARY KEY, team_id TEXT REFERENCES teams ON DELETE CASCADE, admin INTEGER NOT NULL,
      invited_by TEXT REFERENCES people ON DELETE CASCADE, created_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL)`,
    // team_id, person_id: no references, because entries outlive both
    `CREATE TABLE audit (
      id TEXT PRIMARY KEY, at_ms BIGINT NOT NULL, team_id TEXT, person_id TEXT, who TEXT NOT NULL,
      action TEXT NOT NULL, subject TEXT NOT NULL)`,
    `CREATE INDEX audit_by_time ON audit (at_ms)`,
  ],
  [
    // A laptop's login: a short access token, and a refresh token that changes at each use. previous_hash is the one
    // before, which counts once more while confirmed is 0: the laptop may never have got the answer.
    `CREATE TABLE logins (
      id TEXT PRIMARY KEY, person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE, device TEXT NOT NULL,
      created_ms BIGINT NOT NULL, seen_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL,
      access_hash TEXT NOT NULL UNIQUE, access_expires_ms BIGINT NOT NULL,
      refresh_hash TEXT NOT NULL UNIQUE, previous_hash TEXT, confirmed INTEGER NOT NULL)`,
    `CREATE INDEX logins_of_person ON logins (person_id)`,
    `CREATE TABLE spent_tokens (
      hash TEXT PRIMARY KEY, login_id TEXT NOT NULL REFERENCES logins ON DELETE CASCADE)`,
    `CREATE INDEX spent_tokens_of_login ON spent_tokens (login_id)`,
    // What a person has been or is to be asked: an authorization code (of a browser beside the laptop), or a device
    // code with the code that is typed. person_id is there from the yes on.
    `CREATE TABLE grants (
      hash TEXT PRIMARY KEY, kind TEXT NOT NULL, user_code TEXT UNIQUE, state TEXT NOT NULL,
      person_id TEXT REFERENCES people ON DELETE CASCADE, device TEXT NOT NULL, challenge TEXT, redirect_uri TEXT,
      expires_ms BIGINT NOT NULL, polled_ms BIGINT NOT NULL)`,
    `CREATE TABLE api_keys (
      id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
      name TEXT NOT NULL, created_ms BIGINT NOT NULL, used_ms BIGINT)`,
    `CREATE INDEX api_keys_of_person ON api_keys (person_id)`,
  ],
  [`ALTER TABLE spent_tokens ADD COLUMN at_ms BIGINT NOT NULL DEFAULT 0`],
  [
    // A link by which a person with a built-in account chooses a new password.
    `CREATE TABLE password_links (
      hash TEXT PRIMARY KEY, person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
      made_by TEXT NOT NULL REFERENCES people ON DELETE CASCADE, expires_ms BIGINT NOT NULL)`,
  ],
  [
    // The same cluster may be two teams': each has a row of its own. uid: of the namespace kube-system.
    `CREATE TABLE clusters (
      id TEXT PRIMARY KEY, team_id TEXT NOT NULL REFERENCES teams ON DELETE CASCADE, uid TEXT NOT NULL,
      name TEXT NOT NULL, created_ms BIGINT NOT NULL, UNIQUE (team_id, uid))`,
    // What a manager comes with; goes with the login, or the key, that asked for it.
    `CREATE TABLE cluster_tokens (
      hash TEXT PRIMARY KEY, cluster_id TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
      person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
      login_id TEXT REFERENCES logins ON DELETE CASCADE, key_id TEXT REFERENCES api_keys ON DELETE CASCADE,
      created_ms BIGINT NOT NULL)`,
    `CREATE INDEX cluster_tokens_of_cluster ON cluster_tokens (cluster_id)`,
  ],
  [
    // removed_ms: kept for a while, so that its host says what has become of it. live_ms: when its manager last told of it.
    `CREATE TABLE previews (
      id TEXT PRIMARY KEY, host TEXT NOT NULL UNIQUE, team_id TEXT NOT NULL REFERENCES teams ON DELETE CASCADE,
      cluster_id TEXT NOT NULL REFERENCES clusters ON DELETE CASCADE,
      person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
      intercept_id TEXT NOT NULL, intercept TEXT NOT NULL, workload TEXT NOT NULL, ingress TEXT NOT NULL,
      insecure INTEGER NOT NULL, headers TEXT NOT NULL, banner INTEGER NOT NULL, access TEXT NOT NULL,
      created_ms BIGINT NOT NULL, live_ms BIGINT NOT NULL, removed_ms BIGINT, removed_why TEXT)`,
    `CREATE INDEX previews_of_team ON previews (team_id)`,
    `CREATE INDEX previews_of_cluster ON previews (cluster_id)`,
    `CREATE TABLE preview_shares (
      id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, preview_id TEXT NOT NULL REFERENCES previews ON DELETE CASCADE,
      person_id TEXT NOT NULL REFERENCES people ON DELETE CASCADE,
      created_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL)`,
    `CREATE INDEX preview_shares_of_preview ON preview_shares (preview_id)`,
    // A way into one preview, good once and for a minute; browser is the hash of the cookie of the one that asked.
    `CREATE TABLE preview_codes (
      hash TEXT PRIMARY KEY, preview_id TEXT NOT NULL REFERENCES previews ON DELETE CASCADE,
      session_hash TEXT NOT NULL REFERENCES browser_sessions ON DELETE CASCADE,
      browser TEXT NOT NULL, expires_ms BIGINT NOT NULL)`,
    // A browser's cookie of one preview's host: by a login, with which it ends, or by a share link, with which it ends.
    `CREATE TABLE preview_visitors (
      hash TEXT PRIMARY KEY, preview_id TEXT NOT NULL REFERENCES previews ON DELETE CASCADE,
      session_hash TEXT REFERENCES browser_sessions ON DELETE CASCADE,
      share_id TEXT REFERENCES preview_shares ON DELETE CASCADE, expires_ms BIGINT NOT NULL)`,
    `CREATE INDEX preview_visitors_of_preview ON preview_visitors (preview_id)`,
  ],
  // PEM of who may have signed the ingress's certificate, beside everybody whom the server trusts
  [`ALTER TABLE previews ADD COLUMN ingress_ca TEXT`],
  [
    `CREATE TABLE preview_visits (
      preview_id TEXT NOT NULL REFERENCES previews ON DELETE CASCADE, who TEXT NOT NULL,
      requests BIGINT NOT NULL, last_ms BIGINT NOT NULL, PRIMARY KEY (preview_id, who))`,
  ],
];
