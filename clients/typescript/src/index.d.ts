/** Who gets an event; any of them together. Negative users are guests. */
export interface Recipients {
  users?: number[]
  /** Private ids of channels: 32 hex digits. */
  channels?: string[]
  /** Whoever watches one of these. */
  tags?: string[]
  /** Everybody. */
  shared?: boolean
}

export interface Event {
  recipients: Recipients | (number | string)[]
  module_id: string
  command: string
  params?: object
  /** Seconds it is kept for who is away; 86400 unless given. */
  expiry?: number
  extra?: Record<string, unknown>
  /** What single users get beside `params`. */
  user_params?: Record<number, object>
  /** What all users get beside `params`. */
  dictionary?: object
  /** Users whom a tag does not reach. */
  skip_users?: number[]
  /** Events of one call with the same value are one: the first. */
  groupId?: string
  /** `private`, or the client id of an application. */
  channelType?: string
}

/** What a page needs to connect; hand it to the page as it is. */
export interface Config {
  server: { version: number; mode: string; config_timestamp: number; [name: string]: unknown }
  api: { revision_web: number; revision_mobile: number }
  channels?: Record<string, { id: string; public_id?: string; start: string; end: string; type: string }>
  publicChannels: Record<string, PublicChannel> | false
  jwt?: string
  exp?: number
  clientId?: string
  serverTime: string
}

export interface PublicChannel {
  user_id: number
  public_id: string
  signature: string
  start: string
  end: string
}

export interface Channel {
  user_id: number
  type: string
  id: string
  public_id: string
  signed_id: string
  signed_public_id: string
  start: string
  end: string
  last_id: number
}

/** Either a secret or token, or the site's signature key. */
export type Credentials =
  | { secret: string }
  | { key: string; hostId?: string; algorithm?: 'sha1' | 'sha256' | 'sha384' | 'sha512' }

export interface Options {
  /** Milliseconds until an answer is given up; 10,000 unless given. */
  timeout?: number
  /** How often a call is sent at most, where repeating it cannot do harm: 1 to 3, 3 unless given. */
  attempts?: number
  /** Used instead of the global one. */
  fetch?: typeof fetch
}

/** Anything that goes wrong with a call. */
export class VestnikError extends Error {
  /** Whether it may have been done all the same. Nothing that is uncertain is repeated by the client. */
  readonly isUncertain: boolean
}

/** The service answered with an error. */
export class ServiceError extends VestnikError {
  /** What programs look at, for example `RECIPIENT_FORMAT`. */
  readonly code: string
  /** The HTTP status; 200 for an event of a list. */
  readonly status: number
}

/** The service could not be reached, or there was no usable answer. */
export class TransportError extends VestnikError {}

/** The module "Push and Pull" of a vestnik server, for back ends. */
export class Client {
  /** @param url address of the server, for example `https://push.example` */
  constructor(url: string, credentials: Credentials, options?: Options)
  /** Publishes an event. */
  publish(event: Event): Promise<void>
  /** Publishes up to 1000 events; for each what is wrong with it, or null. */
  publishAll(events: Event[]): Promise<(ServiceError | null)[]>
  /** The configuration of a user's page. `host`: host name of the page. */
  config(userId: number, host?: string, more?: { CUSTOM_TYPE?: string; SITE_ID?: string }): Promise<Config>
  /** A short-lived token: the user's page calls the service itself with it. */
  token(userId: number, seconds?: number): Promise<{ token: string; expires: string }>
  /** Lets a user hear of events for tags, for 32 minutes unless extended. */
  watch(userId: number, ...tags: string[]): Promise<boolean>
  /** Extends watches that are there: for each tag whether it was. */
  extendWatches(userId: number, ...tags: string[]): Promise<Record<string, boolean>>
  /** Ends watches: those of the tags, or without tags all of the user's. Whether there was one. */
  unwatch(userId: number, ...tags: string[]): Promise<boolean>
  /** Who watches any of the tags. */
  watchingUsers(...tags: string[]): Promise<number[]>
  /** A user's channel; made when there is none. */
  channel(userId: number, type?: string): Promise<Channel>
  /** What others need to write to users, by user id. */
  publicChannels(userIds: number[]): Promise<Record<string, PublicChannel>>
  /** Signs a channel id as its listener gets it; with a public id both as a pair. */
  signChannel(id: string, publicId?: string): Promise<string>
  /** Signs a public channel id. */
  signPublicChannel(publicId: string): Promise<string>
  /** Calls any operation. `isRepeatable`: whether doing it twice is the same as doing it once; true unless given. */
  call<Result = unknown>(operation: string, fields?: object, isRepeatable?: boolean): Promise<Result>
}
