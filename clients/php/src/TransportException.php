<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * The service could not be reached, or there was no usable answer.
 */
final class TransportException extends VestnikException
{
    private bool $isUncertain;

    public function __construct(string $message, bool $isUncertain)
    {
        parent::__construct($message);
        $this->isUncertain = $isUncertain;
    }

    public function isUncertain(): bool
    {
        return $this->isUncertain;
    }
}
