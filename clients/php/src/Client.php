<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * The module "Push and Pull" of a vestnik server, for back ends.
 *
 * Calls that change nothing twice are repeated when they fail on the way; events are repeated only when it is
 * certain that nothing was published.
 */
final class Client
{
    /** Milliseconds before the second and the third attempt. */
    private const PAUSES_MS = [100, 400];

    private string $base;
    private Credentials $credentials;
    private Transport $transport;
    private int $attempts;

    /**
     * @param string $url address of the server, for example https://push.example or http://127.0.0.1:8895
     * @param int $attempts how often a call is sent at most, where repeating it cannot do harm: 1 to 3
     */
    public function __construct(
        string $url,
        Credentials $credentials,
        ?Transport $transport = null,
        int $attempts = 3
    ) {
        if ($attempts < 1 || $attempts > 3) {
            throw new \InvalidArgumentException('there are 1 to 3 attempts');
        }
        $this->base = rtrim($url, '/') . '/module/';
        $this->credentials = $credentials;
        $this->transport = $transport ?? new SocketTransport();
        $this->attempts = $attempts;
    }

    /**
     * Publishes an event.
     *
     * @param array<string, mixed>|list<int|string> $recipients `['users' => [1], 'tags' => ['DEAL_7'],
     *     'channels' => [...], 'shared' => true]`, any of them; or a list of user ids
     * @param array<mixed> $params
     * @param array<string, mixed> $more expiry, extra, user_params, dictionary, skip_users, groupId, channelType
     */
    public function publish(
        array $recipients,
        string $moduleId,
        string $command,
        array $params = [],
        array $more = []
    ): void {
        $this->call('pull.event.add', self::event($recipients, $moduleId, $command, $params, $more), false);
    }

    /**
     * An event for publishAll().
     *
     * @param array<string, mixed>|list<int|string> $recipients
     * @param array<mixed> $params
     * @param array<string, mixed> $more
     * @return array<string, mixed>
     */
    public static function event(
        array $recipients,
        string $moduleId,
        string $command,
        array $params = [],
        array $more = []
    ): array {
        $event = ['recipients' => $recipients, 'module_id' => $moduleId, 'command' => $command, 'params' => $params];
        foreach (['extra', 'user_params', 'dictionary'] as $name) {
            if (isset($more[$name])) {
                // PHP takes maps whose names are 0, 1, 2 for lists.
                $more[$name] = (object) $more[$name];
            }
        }
        return $event + $more;
    }

    /**
     * Publishes up to 1000 events in one request; equal ones become one.
     *
     * @param list<array<string, mixed>> $events made by event()
     * @return list<ServiceException|null> for each event what is wrong with it, or null
     */
    public function publishAll(array $events): array
    {
        $results = $this->call('pull.event.addBatch', ['events' => array_values($events)], false);
        $read = static function ($result): ?ServiceException {
            if ($result === true) {
                return null;
            }
            $text = (string) ($result['error_description'] ?? '');
            return new ServiceException((string) ($result['error'] ?? 'UNKNOWN'), $text, 200);
        };
        return array_map($read, $results);
    }

    /**
     * The configuration of a user's page, to be handed to the page as it is. Negative ids are guests.
     *
     * @param string $host host name of the page; empty: where this client sends to
     * @param array<string, mixed> $more CUSTOM_TYPE, SITE_ID
     * @return array<string, mixed>
     */
    public function config(int $userId, string $host = '', array $more = []): array
    {
        return $this->call('pull.config.get', ['USER_ID' => $userId, 'HOST' => $host] + $more);
    }

    /**
     * A short-lived token: the user's page calls the service itself with it.
     *
     * @return array{token: string, expires: string}
     */
    public function token(int $userId, int $seconds = 3600): array
    {
        return $this->call('pull.token.get', ['USER_ID' => $userId, 'TTL' => $seconds]);
    }

    /**
     * Lets a user hear of events for tags, for 32 minutes unless extended.
     */
    public function watch(int $userId, string ...$tags): bool
    {
        return $this->call('pull.watch.add', ['USER_ID' => $userId, 'TAGS' => $tags]);
    }

    /**
     * Extends watches that are there.
     *
     * @return array<string, bool> for each tag whether it was
     */
    public function extendWatches(int $userId, string ...$tags): array
    {
        $extended = $this->call('pull.watch.extend', ['USER_ID' => $userId, 'TAGS' => $tags]);
        return is_array($extended) ? $extended : [];
    }

    /**
     * Ends watches: those of the tags, or without tags all of the user's. Whether there was one.
     */
    public function unwatch(int $userId, string ...$tags): bool
    {
        return $this->call('pull.watch.delete', ['USER_ID' => $userId] + ($tags === [] ? [] : ['TAGS' => $tags]));
    }

    /**
     * Who watches any of the tags.
     *
     * @return list<int>
     */
    public function watchingUsers(string ...$tags): array
    {
        return array_map('intval', $this->call('pull.watch.users', ['TAGS' => $tags]));
    }

    /**
     * A user's channel; made when there is none.
     *
     * @param string $type `private`, or the client id of an application
     * @return array<string, mixed>
     */
    public function channel(int $userId, string $type = 'private'): array
    {
        return $this->call('pull.channel.get', ['USER_ID' => $userId, 'TYPE' => $type]);
    }

    /**
     * What others need to write to users.
     *
     * @param list<int> $userIds
     * @return array<int, array<string, mixed>> by user id
     */
    public function publicChannels(array $userIds): array
    {
        return $this->call('pull.channel.public.list', ['USERS' => array_values($userIds)]);
    }

    /**
     * Signs a channel id as its listener gets it; with a public id both as a pair.
     */
    public function signChannel(string $id, string $publicId = ''): string
    {
        return $this->call('pull.channel.sign', ['ID' => $id] + ($publicId === '' ? [] : ['PUBLIC_ID' => $publicId]));
    }

    /**
     * Signs a public channel id.
     */
    public function signPublicChannel(string $publicId): string
    {
        return $this->call('pull.channel.sign', ['ID' => $publicId, 'PUBLIC' => 'Y']);
    }

    /**
     * Calls any operation of the service; `/module/openapi.json` lists them.
     *
     * @param array<string, mixed> $fields
     * @param bool $isRepeatable whether doing it twice is the same as doing it once
     * @return mixed the result
     * @throws VestnikException
     */
    public function call(string $operation, array $fields = [], bool $isRepeatable = true)
    {
        try {
            $flags = JSON_THROW_ON_ERROR | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES
                | JSON_PRESERVE_ZERO_FRACTION;
            $body = json_encode((object) $fields, $flags);
        } catch (\JsonException $error) {
            throw new \InvalidArgumentException('the fields are no JSON: ' . $error->getMessage(), 0, $error);
        }
        for ($attempt = 1;; $attempt++) {
            try {
                return $this->once($operation, $body);
            } catch (VestnikException $error) {
                if ($attempt >= $this->attempts || !self::mayRepeat($error, $isRepeatable)) {
                    throw $error;
                }
                usleep(1000 * self::PAUSES_MS[$attempt - 1]);
            }
        }
    }

    private static function mayRepeat(VestnikException $error, bool $isRepeatable): bool
    {
        if ($error instanceof ServiceException) {
            // Both are said before anything is published.
            return in_array($error->errorCode(), ['SERVICE_UNAVAILABLE', 'CHANNEL_LOCKED'], true);
        }
        return $isRepeatable || !$error->isUncertain();
    }

    /**
     * @return mixed
     */
    private function once(string $operation, string $body)
    {
        $url = $this->base . rawurlencode($operation) . $this->credentials->query($body);
        $headers = ['Content-Type' => 'application/json', 'Accept' => 'application/json'];
        [$status, $text] = $this->transport->post($url, $headers + $this->credentials->headers(), $body);
        $answer = json_decode($text, true);
        if (is_array($answer) && array_key_exists('result', $answer) && $status === 200) {
            return $answer['result'];
        }
        if (is_array($answer) && isset($answer['error'])) {
            $code = (string) $answer['error'];
            throw new ServiceException($code, (string) ($answer['error_description'] ?? ''), $status);
        }
        throw new TransportException("the answer is none of the service: HTTP status $status", true);
    }
}
