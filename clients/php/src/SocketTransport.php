<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * HTTP over a connection of its own for each request: PHP's sockets, no extensions. Certificates are checked.
 */
final class SocketTransport implements Transport
{
    private const ANSWER_BYTES_MAX = 16 * 1024 * 1024;

    private float $connectTimeout;
    private float $timeout;

    /**
     * @param float $connectTimeout seconds until a connection is given up
     * @param float $timeout seconds until an answer is given up, all of it
     */
    public function __construct(float $connectTimeout = 2.0, float $timeout = 10.0)
    {
        if ($connectTimeout <= 0 || $timeout <= 0) {
            throw new \InvalidArgumentException('timeouts are above 0 seconds');
        }
        [$this->connectTimeout, $this->timeout] = [$connectTimeout, $timeout];
    }

    public function post(string $url, array $headers, string $body): array
    {
        $parts = parse_url($url);
        $scheme = strtolower($parts['scheme'] ?? '');
        if (!isset($parts['host']) || !in_array($scheme, ['http', 'https'], true)) {
            throw new \InvalidArgumentException('the address begins with http:// or https://');
        }
        $host = $parts['host'];
        $port = $parts['port'] ?? ($scheme === 'https' ? 443 : 80);
        $target = ($parts['path'] ?? '/') . (isset($parts['query']) ? '?' . $parts['query'] : '');
        $stream = $this->connect($scheme, $host, $port);
        try {
            // Version 1.0: the answer ends with the connection and is never in chunks.
            $head = "POST $target HTTP/1.0\r\nHost: $host" . (isset($parts['port']) ? ":$port" : '') . "\r\n";
            $headers += ['Content-Length' => (string) strlen($body), 'Connection' => 'close'];
            foreach ($headers as $name => $value) {
                $head .= "$name: $value\r\n";
            }
            $end = microtime(true) + $this->timeout;
            $this->write($stream, "$head\r\n$body", $end);
            return self::parse($this->read($stream, $end));
        } finally {
            fclose($stream);
        }
    }

    /**
     * @return resource
     */
    private function connect(string $scheme, string $host, int $port)
    {
        $context = stream_context_create(['ssl' => ['peer_name' => trim($host, '[]')]]);
        $address = ($scheme === 'https' ? 'tls' : 'tcp') . "://$host:$port";
        [$number, $reason] = [0, ''];
        $stream = @stream_socket_client(
            $address,
            $number,
            $reason,
            $this->connectTimeout,
            STREAM_CLIENT_CONNECT,
            $context
        );
        if ($stream === false) {
            $reason = $reason !== '' ? $reason : (error_get_last()['message'] ?? 'unknown');
            throw new TransportException("no connection to $host:$port: $reason", false);
        }
        return $stream;
    }

    /**
     * @param resource $stream
     */
    private function write($stream, string $bytes, float $end): void
    {
        while ($bytes !== '') {
            $this->limit($stream, $end);
            $written = @fwrite($stream, $bytes);
            if ($written === false || $written === 0) {
                throw new TransportException('the connection broke while the request was sent', true);
            }
            $bytes = substr($bytes, $written);
        }
    }

    /**
     * @param resource $stream
     */
    private function read($stream, float $end): string
    {
        $answer = '';
        while (!feof($stream)) {
            $this->limit($stream, $end);
            $part = fread($stream, 65536);
            if ($part === false || stream_get_meta_data($stream)['timed_out']) {
                throw new TransportException("no answer within $this->timeout s", true);
            }
            $answer .= $part;
            if (strlen($answer) > self::ANSWER_BYTES_MAX) {
                throw new TransportException('the answer is longer than 16 MiB', true);
            }
        }
        return $answer;
    }

    /**
     * Lets the next step take only what is left of the time.
     *
     * @param resource $stream
     */
    private function limit($stream, float $end): void
    {
        $left = $end - microtime(true);
        if ($left <= 0) {
            throw new TransportException("no answer within $this->timeout s", true);
        }
        stream_set_timeout($stream, (int) $left, (int) (($left - (int) $left) * 1000000));
    }

    /**
     * @return array{int, string}
     */
    private static function parse(string $answer): array
    {
        $parts = explode("\r\n\r\n", $answer, 2);
        if (count($parts) !== 2 || preg_match('~^HTTP/1\.[01] (\d{3})~', $parts[0], $found) !== 1) {
            throw new TransportException('the connection ended without an answer', true);
        }
        if (preg_match('/^content-length:\s*(\d+)/im', $parts[0], $length) === 1) {
            if (strlen($parts[1]) < (int) $length[1]) {
                throw new TransportException('the connection ended within the answer', true);
            }
        }
        return [(int) $found[1], $parts[1]];
    }
}
