// What the registry tells, besides laptops and agents.

/** Follows what becomes of intercepts, for those who see them through a cloud server. */
export interface RegistryWatcher {
  /** Something that `list` tells may be different. */
  changed(): void;
  /** It is not to come back: its laptop or somebody else has ended it, or stays away. */
  ended(interceptId: string): void;
}
