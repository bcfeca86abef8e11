<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * Sends one request. Replace it to use a HTTP client of your own.
 */
interface Transport
{
    /**
     * @param array<string, string> $headers
     * @return array{int, string} status and body
     * @throws TransportException without an answer; uncertain unless nothing was sent
     */
    public function post(string $url, array $headers, string $body): array;
}
