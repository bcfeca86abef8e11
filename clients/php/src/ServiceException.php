<?php

declare(strict_types=1);

namespace Vestnik;

/**
 * The service answered with an error.
 */
final class ServiceException extends VestnikException
{
    private string $errorCode;
    private int $status;

    public function __construct(string $errorCode, string $description, int $status)
    {
        parent::__construct("$errorCode: $description", $status);
        [$this->errorCode, $this->status] = [$errorCode, $status];
    }

    /**
     * What programs look at, for example RECIPIENT_FORMAT.
     */
    public function errorCode(): string
    {
        return $this->errorCode;
    }

    /**
     * The HTTP status; 200 for an event of a list.
     */
    public function status(): int
    {
        return $this->status;
    }

    public function isUncertain(): bool
    {
        return in_array($this->errorCode, ['EVENT_UNCERTAIN', 'EVENT_NOT_PUBLISHED'], true);
    }
}
