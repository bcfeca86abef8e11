<?php

declare(strict_types=1);

// Against a real service: VESTNIK_URL, VESTNIK_SECRET (of a back end) and VESTNIK_KEY (the signature key).

use Vestnik\Client;
use Vestnik\Credentials;
use Vestnik\ServiceException;
use Vestnik\SocketTransport;
use Vestnik\Transport;
use Vestnik\TransportException;
use Vestnik\VestnikException;

require __DIR__ . '/../autoload.php';
error_reporting(E_ALL);
set_error_handler(static function (int $level, string $text, string $file, int $line): bool {
    if ((error_reporting() & $level) === 0) {
        return false; // silenced on purpose
    }
    throw new ErrorException($text, 0, $level, $file, $line);
});

/** Answers what it was told, and counts. */
final class ScriptedTransport implements Transport
{
    /** @var list<array{int, string}|TransportException> */
    public array $answers;
    /** @var list<array{string, array<string, string>, string}> */
    public array $requests = [];

    public function __construct(array $answers)
    {
        $this->answers = $answers;
    }

    public function post(string $url, array $headers, string $body): array
    {
        $this->requests[] = [$url, $headers, $body];
        $answer = array_shift($this->answers);
        if ($answer instanceof TransportException) {
            throw $answer;
        }
        return $answer;
    }
}

function same($expected, $found): void
{
    if ($expected !== $found) {
        throw new RuntimeException('expected ' . var_export($expected, true) . ', found ' . var_export($found, true));
    }
}

/** The exception of a call that must fail. */
function failure(callable $call): Throwable
{
    try {
        $call();
    } catch (Throwable $error) {
        return $error;
    }
    throw new RuntimeException('it did not fail');
}

/** How many requests a call makes when these answers come. */
function requests(array $answers, callable $call): int
{
    $transport = new ScriptedTransport($answers);
    $client = new Client('http://example.test/', Credentials::bearer('s'), $transport);
    try {
        $call($client);
    } catch (VestnikException $error) {
        // Counted is what matters.
    }
    return count($transport->requests);
}

$url = getenv('VESTNIK_URL');
$client = new Client($url, Credentials::bearer(getenv('VESTNIK_SECRET')));
$publish = static fn (Client $it) => $it->publish(['users' => [1]], 'm', 'c');
$read = static fn (Client $it) => $it->config(1);
$lost = new TransportException('lost', true);
$away = new TransportException('away', false);
$busy = [503, '{"error":"SERVICE_UNAVAILABLE","error_description":"x"}'];
$good = [200, '{"result":true}'];

$tests = [
    'an event is published and a watch is kept' => static function () use ($client): void {
        same(true, $client->watch(7, 'DEAL_1', 'Сделка'));
        same(['DEAL_1' => true, 'Сделка' => true, 'NO' => false], $client->extendWatches(7, 'DEAL_1', 'Сделка', 'NO'));
        same([7], $client->watchingUsers('DEAL_1'));
        $client->publish(['users' => [7], 'tags' => ['DEAL_1'], 'shared' => true], 'chat', 'message', ['text' => "Привет \u{1F511}"]);
        $client->publish([7], 'chat', 'message', [], ['user_params' => [7 => ['a' => 1]], 'expiry' => 60]);
        same(true, $client->unwatch(7, 'DEAL_1'));
        same(true, $client->unwatch(7));
        same(false, $client->unwatch(7));
    },
    'each event of a list has its own result' => static function () use ($client): void {
        $results = $client->publishAll([
            Client::event(['users' => [1]], 'm', 'one'),
            Client::event(['users' => []], 'm', 'nobody'),
            Client::event(['shared' => true], 'm', 'two'),
        ]);
        same([null, null], [$results[0], $results[2]]);
        same('RECIPIENT_FORMAT', $results[1]->errorCode());
    },
    'a page gets its configuration' => static function () use ($client): void {
        $config = $client->config(7, 'shop.example');
        same('private', $config['channels']['private']['type']);
        same(true, strpos($config['server']['websocket'], 'ws://') === 0);
        same(true, strlen($client->token(7, 60)['token']) > 20);
    },
    'channels are signed as the key signs' => static function () use ($client, $url): void {
        $id = '00112233445566778899aabbccddeeff';
        $key = getenv('VESTNIK_KEY');
        same($id . '.' . hash_hmac('sha1', $id, $key), $client->signChannel($id));
        same($id . '.' . hash_hmac('sha1', "public:$id", $key), $client->signPublicChannel($id));
        $channel = $client->channel(7);
        same(32, strlen($channel['id']));
        same($channel['public_id'], $client->publicChannels([7])[7]['public_id']);
        $signing = new Client($url, Credentials::signature($key));
        same($channel['id'], $signing->channel(7)['id']);
    },
    'errors have the codes of the service' => static function () use ($client, $url): void {
        $error = failure(static fn () => $client->publish(['users' => []], 'm', 'c'));
        same([ServiceException::class, 'RECIPIENT_FORMAT', 400, false], [get_class($error), $error->errorCode(), $error->status(), $error->isUncertain()]);
        same('ERROR_METHOD_NOT_FOUND', failure(static fn () => $client->call('no.such'))->errorCode());
        foreach ([Credentials::bearer('wrong'), Credentials::signature('wrong'), Credentials::signature('k', 'nobody')] as $wrong) {
            $error = failure(static fn () => (new Client($url, $wrong))->config(1));
            same(['NO_AUTH_FOUND', 401], [$error->errorCode(), $error->status()]);
        }
        same(InvalidArgumentException::class, get_class(failure(static fn () => $client->publish([1], 'm', "\xff"))));
        same(InvalidArgumentException::class, get_class(failure(static fn () => Credentials::bearer("a\r\nX: y"))));
    },
    'nobody there is told soon, and is certain' => static function (): void {
        $transport = new SocketTransport(1.0, 1.0);
        $nobody = new Client('http://127.0.0.1:1', Credentials::bearer('s'), $transport, 1);
        $error = failure(static fn () => $nobody->config(1));
        same([TransportException::class, false], [get_class($error), $error->isUncertain()]);
    },
    'a server that says nothing is left in time, and that is uncertain' => static function (): void {
        $silent = stream_socket_server('tcp://127.0.0.1:0');
        $address = stream_socket_get_name($silent, false);
        $client = new Client("http://$address", Credentials::bearer('s'), new SocketTransport(1.0, 0.3), 1);
        $error = failure(static fn () => $client->publish([1], 'm', 'c'));
        same([TransportException::class, true], [get_class($error), $error->isUncertain()]);
        fclose($silent);
    },
    'events are repeated only when nothing was published' => static function () use ($publish, $lost, $away, $busy, $good): void {
        same(1, requests([$lost], $publish));
        same(3, requests([$away, $away, $away], $publish));
        same(2, requests([$busy, $good], $publish));
        same(1, requests([[503, '{"error":"EVENT_NOT_PUBLISHED","error_description":"x"}']], $publish));
        same(1, requests([[503, '<html>']], $publish));
        same(1, requests([[400, '{"error":"RECIPIENT_FORMAT","error_description":"x"}']], $publish));
    },
    'what is the same twice is repeated when the answer is lost' => static function () use ($read, $lost, $busy): void {
        same(2, requests([$lost, [200, '{"result":{}}']], $read));
        same(3, requests([$lost, $lost, $lost], $read));
        same(3, requests([$busy, $busy, $busy], $read));
        same(1, requests([[403, '{"error":"ACCESS_DENIED","error_description":"x"}']], $read));
    },
    'bodies are signed and secrets are not shown' => static function () use ($good): void {
        $transport = new ScriptedTransport([$good]);
        $credentials = Credentials::signature('very-secret', 'h', 'sha256');
        (new Client('http://example.test', $credentials, $transport))->call('a.b', ['x' => 1]);
        [$url, $headers, $body] = $transport->requests[0];
        same('{"x":1}', $body);
        same('http://example.test/module/a.b?hostId=h&signature=' . hash_hmac('sha256', $body, 'very-secret'), $url);
        same(false, isset($headers['Authorization']));
        same(false, strpos(print_r($credentials, true), 'very-secret'));
    },
];

foreach ($tests as $name => $test) {
    try {
        $test();
        echo "ok $name\n";
    } catch (Throwable $error) {
        echo "FAILED $name: ", get_class($error), ' ', $error->getMessage(), ' at line ', $error->getLine(), "\n";
        exit(1);
    }
}
echo count($tests), " tests passed\n";
