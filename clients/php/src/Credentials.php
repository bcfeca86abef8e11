<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * Who calls: a back end with the site's signature key, or somebody with a secret or token.
 */
final class Credentials
{
    private string $hostId = '';
    private string $key = '';
    private string $algorithm = 'sha1';
    private string $bearer = '';

    private function __construct()
    {
    }

    /**
     * The site's signature key: every body is signed with it.
     *
     * @param string $hostId the tenant; empty: the default one
     * @param string $algorithm the option signature_algo
     */
    public static function signature(string $key, string $hostId = '', string $algorithm = 'sha1'): self
    {
        if ($key === '') {
            throw new \InvalidArgumentException('the signature key is empty');
        }
        if (!in_array($algorithm, hash_hmac_algos(), true)) {
            throw new \InvalidArgumentException("there is no signature algorithm $algorithm");
        }
        $credentials = new self();
        [$credentials->key, $credentials->hostId, $credentials->algorithm] = [$key, $hostId, $algorithm];
        return $credentials;
    }

    /**
     * A secret that `vestnik secret add` printed, or a user's token.
     */
    public static function bearer(string $secret): self
    {
        // A line break would begin a header of its own.
        if ($secret === '' || preg_match('/[^\x21-\x7e]/', $secret) === 1) {
            throw new \InvalidArgumentException('a secret has only visible characters and at least one');
        }
        $credentials = new self();
        $credentials->bearer = $secret;
        return $credentials;
    }

    /**
     * What goes behind the address of an operation.
     */
    public function query(string $body): string
    {
        if ($this->bearer !== '') {
            return '';
        }
        $fields = $this->hostId === '' ? [] : ['hostId' => $this->hostId];
        return '?' . http_build_query($fields + ['signature' => hash_hmac($this->algorithm, $body, $this->key)]);
    }

    /**
     * @return array<string, string>
     */
    public function headers(): array
    {
        return $this->bearer === '' ? [] : ['Authorization' => 'Bearer ' . $this->bearer];
    }

    /**
     * Keys and secrets are not shown where objects are printed.
     *
     * @return array<string, string>
     */
    public function __debugInfo(): array
    {
        return ['hostId' => $this->hostId];
    }
}
