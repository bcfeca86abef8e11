<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * Anything that goes wrong with a call.
 */
abstract class VestnikException extends \RuntimeException
{
    /**
     * Whether it may have been done all the same: an event may have been published. Nothing that is uncertain is
     * repeated by the client.
     */
    abstract public function isUncertain(): bool;
}
